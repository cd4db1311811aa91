//! What of minijinja's language is allowed. Looked for in the text, because minijinja finds an unknown filter only when
//! it renders, and has no switch for the rest.

use super::{super::TemplateFault, environment::FILTERS};

const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];
/// `~`, `+` and `*` in one template.
const MAX_BUILDING: usize = 8;

/// Refuses statements other than conditions and loops, unknown filters, and many operators that build texts.
pub(super) fn check(source: &str) -> Result<(), TemplateFault> {
    let mut building = 0;
    let mut rest = source;
    while let Some(start) = rest.find('{') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix('#') {
            rest = comment.split_once("#}").map_or("", |(_, behind)| behind);
        } else if let Some(inside) = rest.strip_prefix('%') {
            let inside = inside.trim_start_matches(['-', '+']).trim_start();
            let statement = word(inside);
            if !STATEMENTS.contains(&statement) {
                let known = STATEMENTS.join(", ");
                return Err(TemplateFault(format!(
                    "no statement `{statement}`; there are {known}"
                )));
            }
            rest = expression(inside, "%}", &mut building)?;
        } else if let Some(inside) = rest.strip_prefix('{') {
            rest = expression(inside, "}}", &mut building)?;
        }
    }
    if building > MAX_BUILDING {
        return Err(TemplateFault(format!("more than {MAX_BUILDING} of the operators ~ + *")));
    }
    Ok(())
}

/// Looks through one expression; what is behind its end.
fn expression<'s>(
    mut rest: &'s str,
    end: &str,
    building: &mut usize,
) -> Result<&'s str, TemplateFault> {
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix(end) {
            return Ok(behind);
        }
        let mut chars = rest.chars();
        match chars.next() {
            Some(quote @ ('"' | '\'')) => {
                rest = behind_text(chars.as_str(), quote);
                continue;
            }
            Some('~' | '+' | '*') => *building += 1,
            Some('|') => {
                let name = word(chars.as_str().trim_start());
                if !FILTERS.contains(&name) {
                    let known = FILTERS.join(", ");
                    return Err(TemplateFault(format!(
                        "unknown filter `{name}`; there are {known}"
                    )));
                }
            }
            _ => {}
        }
        rest = chars.as_str();
    }
    Ok("") // not closed: minijinja says so
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

fn behind_text(text: &str, quote: char) -> &str {
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if char == quote {
            break;
        }
    }
    chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_templates_are_allowed() {
        for source in [
            "text { } % #",
            "{{ a | upper | default('|x') }}",
            "{% if a %}{% elif b %}{% else %}{% endif %}",
            "{%- for a in b -%}{{ a }}{%- endfor -%}",
            "{# {% set a = 1 %} #}",
            "{{ '{% set %}' }}",
            "{{ 'it\\'s | x' }}",
            "{{ a + b ~ c }}",
        ] {
            assert_eq!(check(source), Ok(()), "{source}");
        }
        for (source, fault) in [
            ("{% set a = 1 %}", "no statement `set`"),
            ("{%- with a = 1 %}", "no statement `with`"),
            ("{% include 'a' %}", "no statement `include`"),
            ("{% raw %}", "no statement `raw`"),
            ("{{ a |shout }}", "unknown filter `shout`"),
            ("{{ a }}{{ b | upper | safe }}", "unknown filter `safe`"),
            ("{% if a | replace('b', 'c') %}", "unknown filter `replace`"),
            ("{{ a~a~a~a~a~a~a~a~a~a }}", "more than 8"),
        ] {
            let found = check(source).unwrap_err().0;
            assert!(found.contains(fault), "{source}: {found}");
        }
    }
}
