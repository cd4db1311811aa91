//! What a key that is not known may have meant: a slip of the finger, another section, a part not built yet.

use serde_json::Value;

/// `; did you mean …?` for the word nearest to the one given, or nothing.
pub(super) fn guess<'w>(given: &str, words: impl Iterator<Item = &'w str>) -> String {
    let far = (given.chars().count() / 3).max(1);
    words
        .filter(|word| word.len() <= LONGEST_WORD && given.len() <= LONGEST_WORD)
        .map(|word| (distance(given, word), word))
        .filter(|(distance, _)| *distance <= far)
        .min_by_key(|(distance, _)| *distance)
        .map_or(String::new(), |(_, word)| format!("; did you mean `{word}`?"))
}

/// `; it belongs to …` where a key of that name is known in other sections.
pub(super) fn elsewhere(name: &str, section: &[&str], whole: &Value) -> String {
    let mut places = Vec::new();
    find_sections(name, whole, &mut Vec::new(), &mut places);
    // Nearest first: the section whose path shares most with this one.
    let shared = |place: &String| {
        place.split('.').zip(section).take_while(|(one, two)| one == *two || *one == "NAME").count()
    };
    places.sort_by_key(|place| std::cmp::Reverse(shared(place)));
    match places.first() {
        Some(place) if place.is_empty() => "; it belongs to the top of the file".to_owned(),
        Some(place) => format!("; it belongs to [{place}]"),
        None => String::new(),
    }
}

/// Whether the key belongs to a part of the design that is not built yet.
pub(super) fn not_built(section: &[&str], name: &str) -> bool {
    NOT_BUILT.iter().any(|(place, names)| {
        let place: Vec<&str> = place.split('.').filter(|step| !step.is_empty()).collect();
        let same = |(one, two): (&&str, &&str)| *one == "NAME" || one == two;
        place.len() == section.len() && place.iter().zip(section).all(same) && names.contains(&name)
    })
}

fn find_sections(name: &str, schema: &Value, path: &mut Vec<String>, places: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        if properties.contains_key(name) {
            places.push(path.join("."));
        }
        for (key, inner) in properties {
            path.push(key.clone());
            find_sections(name, inner, path, places);
            path.pop();
        }
    }
    if let Some(inner) = schema.get("additionalProperties").filter(|other| other.is_object()) {
        path.push("NAME".to_owned());
        find_sections(name, inner, path, places);
        path.pop();
    }
}

/// Edits (insert, delete, replace, swap of neighbours) between two short words.
fn distance(one: &str, two: &str) -> usize {
    let (one, two): (Vec<char>, Vec<char>) = (one.chars().collect(), two.chars().collect());
    let mut rows = vec![vec![0; two.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=two.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != two[j - 1]);
                let swapped =
                    i > 1 && j > 1 && one[i - 1] == two[j - 2] && one[i - 2] == two[j - 1];
                let swapped = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(swapped)
            };
        }
    }
    rows[one.len()][two.len()]
}

const LONGEST_WORD: usize = 64;

/// Keys that the design has and this version has not.
const NOT_BUILT: &[(&str, &[&str])] = &[
    ("", &["notice", "notices", "schedule", "tracing", "cache"]),
    ("listen", &["acme"]),
    ("listen.tls", &["acme"]),
    ("admin", &["users", "tls"]),
    ("store", &["url", "seal_to"]),
    ("upstream.NAME", &["schedule", "schedules", "weight"]),
    ("route.NAME", &["cache", "reconcile", "rehearsal", "drill", "dedupe_guard", "schedule"]),
    ("route.NAME.stand_in", &["checks", "rehearsal", "drill", "notice"]),
    (
        "route.NAME.replay",
        &["reconcile", "schedule", "schedules", "credentials", "sign_with", "window"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_guessed_and_other_words_are_not() {
        let words = ["endpoints", "timeout", "on"];
        assert_eq!(guess("endpoint", words.into_iter()), "; did you mean `endpoints`?");
        assert_eq!(guess("tiemout", words.into_iter()), "; did you mean `timeout`?");
        assert_eq!(guess("purple", words.into_iter()), "");
    }

    #[test]
    fn a_key_of_another_section_is_sent_there() {
        let schema = super::super::schema::json_schema();
        let from_route = elsewhere("accept_if", &["route", "checkout"], &schema);
        assert_eq!(from_route, "; it belongs to [route.NAME.stand_in]");
        assert_eq!(elsewhere("role", &["listen"], &schema), "; it belongs to the top of the file");
        assert_eq!(elsewhere("nonsense", &[], &schema), "");
    }

    #[test]
    fn no_key_is_both_known_and_not_built() {
        let schema = super::super::schema::json_schema();
        for (place, names) in NOT_BUILT {
            let path: Vec<String> =
                place.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect();
            let section = super::super::schema::at(&schema, &path).unwrap();
            for name in *names {
                assert!(super::super::schema::child(section, name).is_none(), "{place}.{name}");
            }
        }
    }
}
