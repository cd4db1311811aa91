//! What a route's `match` says: `"[METHOD] [HOST]/PATH"`, where `{name}` is one segment and `{name...}` the rest.
//!
//! Patterns speak of the canonical path (decoded, free of dots); which one of several wins is their order.

mod parse;

use std::cmp::Ordering;

use http::Method;

/// One parsed `match`. Its order is how specific it is: the most specific sorts first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutePattern {
    /// Every method when absent.
    pub method: Option<Method>,
    /// Host name in lower case, without port; every host when absent.
    pub host: Option<String>,
    /// The path between its slashes: `/` is one empty literal, `/a/` is `a` and an empty one.
    pub segments: Vec<Segment>,
}

/// One part of a path between two slashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    Literal(String),
    /// Exactly one segment that is not empty.
    Param(String),
    /// All segments from here on, slashes included; may be empty.
    Rest(String),
}

/// Why a `match` is not one, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MatchFault(String);

impl RoutePattern {
    /// Reads `"POST /orders/{id}"`, `"shop.example/files/{path...}"`, `"/"`.
    pub fn parse(text: &str) -> Result<Self, MatchFault> {
        let mut words = text.split_ascii_whitespace();
        let (method, target) = match (words.next(), words.next(), words.next()) {
            (Some(target), None, None) if target.contains('/') => (None, target),
            (Some(method), Some(target), None) if !method.contains('/') => {
                (Some(parse::method(method)?), target)
            }
            _ => return parse::fault(format!("`{text}` is not a match; {}", parse::FORM)),
        };
        let Some(slash) = target.find('/') else {
            return parse::fault(format!("`{target}` has no path; {}", parse::FORM));
        };
        let (host, path) = target.split_at(slash);
        let host = (!host.is_empty()).then(|| parse::host(host)).transpose()?;
        Ok(Self { method, host, segments: parse::path(path)? })
    }

    /// The parameters of a canonical path (`/orders/7`, decoded), if the path fits this pattern.
    pub fn match_path(&self, path: &str) -> Option<Vec<(String, String)>> {
        let mut rest = path.strip_prefix('/');
        let mut params = Vec::new();
        for segment in &self.segments {
            let left = rest?;
            rest = match segment {
                Segment::Rest(name) => {
                    params.push((name.clone(), left.to_owned()));
                    return Some(params);
                }
                // Nearly all routes that do not fit end here, at the first bytes that differ.
                Segment::Literal(text) => match left.strip_prefix(text.as_str())? {
                    "" => None,
                    more => Some(more.strip_prefix('/')?),
                },
                Segment::Param(name) => {
                    let end = memchr::memchr(b'/', left.as_bytes());
                    let head = &left[..end.unwrap_or(left.len())];
                    if head.is_empty() {
                        return None;
                    }
                    params.push((name.clone(), head.to_owned()));
                    end.map(|end| &left[end + 1..])
                }
            };
        }
        rest.is_none().then_some(params)
    }

    /// Whether an app may take the path for one of these: many do not mind letter case, nor a slash at the end.
    pub fn could_mean(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let mut left = Some(path.strip_suffix('/').unwrap_or(path));
        for segment in self.without_last_slash() {
            if matches!(segment, Segment::Rest(_)) {
                return true;
            }
            let Some(text) = left else { return false };
            let (head, rest) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
            match segment {
                Segment::Literal(literal) if !same_letters(literal, head) => return false,
                Segment::Param(_) if head.is_empty() => return false,
                _ => left = rest,
            }
        }
        left.is_none_or(str::is_empty)
    }

    /// Whether there may be a path that one of them takes, and that an app may take for one of the other's.
    pub fn could_meet(&self, other: &Self) -> bool {
        if self.method.as_ref().zip(other.method.as_ref()).is_some_and(|(a, b)| a != b) {
            return false;
        }
        let (one, two) = (self.without_last_slash(), other.without_last_slash());
        for pair in one.iter().zip(two) {
            match pair {
                (Segment::Rest(_), _) | (_, Segment::Rest(_)) => return true,
                (Segment::Literal(a), Segment::Literal(b)) if !same_letters(a, b) => return false,
                _ => {}
            }
        }
        let more = if one.len() > two.len() { &one[two.len()..] } else { &two[one.len()..] };
        more.first().is_none_or(|next| matches!(next, Segment::Rest(_)))
    }

    fn without_last_slash(&self) -> &[Segment] {
        match self.segments.split_last() {
            Some((Segment::Literal(last), before)) if last.is_empty() => before,
            _ => &self.segments,
        }
    }

    /// Whether both take exactly the same requests: names of parameters do not matter.
    pub fn same_requests(&self, other: &Self) -> bool {
        self.method == other.method
            && self.host == other.host
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(one, two)| match (one, two) {
                (Segment::Literal(a), Segment::Literal(b)) => a == b,
                (a, b) => a.rank() == b.rank(),
            })
    }

    /// `Less`: this one is more specific. First the host, then the path from the left, then the method.
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        let host = |pattern: &Self| pattern.host.is_none();
        let method = |pattern: &Self| pattern.method.is_none();
        let ranks = |pattern: &Self| {
            // The end of a pattern ranks like a literal: it leaves nothing open.
            pattern.segments.iter().map(Segment::rank).chain([0]).collect::<Vec<_>>()
        };
        host(self)
            .cmp(&host(other))
            .then_with(|| ranks(self).cmp(&ranks(other)))
            .then_with(|| method(self).cmp(&method(other)))
    }
}

fn same_letters(one: &str, two: &str) -> bool {
    one.eq_ignore_ascii_case(two)
        || !(one.is_ascii() && two.is_ascii()) && one.to_lowercase() == two.to_lowercase()
}

impl Segment {
    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Param(_) => 1,
            Self::Rest(_) => 2,
        }
    }
}

impl Ord for RoutePattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let method = |pattern: &Self| pattern.method.as_ref().map(Method::to_string);
        self.cmp_specificity(other)
            .then_with(|| self.segments.cmp(&other.segments))
            .then_with(|| self.host.cmp(&other.host))
            .then_with(|| method(self).cmp(&method(other)))
    }
}

impl PartialOrd for RoutePattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As it could stand in the configuration.
impl std::fmt::Display for RoutePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(method) = &self.method {
            write!(f, "{method} ")?;
        }
        f.write_str(self.host.as_deref().unwrap_or_default())?;
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Param(name) => write!(f, "/{{{name}}}")?,
                Segment::Rest(name) => write!(f, "/{{{name}...}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> RoutePattern {
        RoutePattern::parse(text).unwrap()
    }

    fn refused(text: &str) -> String {
        RoutePattern::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_match_has_method_host_and_path() {
        let all = pattern("POST Shop.Example/orders/{id}/{path...}");
        assert_eq!(all.method, Some(Method::POST));
        assert_eq!(all.host.as_deref(), Some("shop.example"));
        assert_eq!(
            all.segments,
            [
                Segment::Literal("orders".into()),
                Segment::Param("id".into()),
                Segment::Rest("path".into())
            ]
        );
        assert_eq!(pattern("/").segments, [Segment::Literal(String::new())]);
        assert_eq!(pattern("[::1]/a").host.as_deref(), Some("[::1]"));
        assert_eq!(pattern("/caf%C3%A9"), pattern("/café"));
    }

    #[test]
    fn paths_give_their_parameters() {
        let params = |text: &str, path: &str| {
            let found = pattern(text).match_path(path)?;
            Some(
                found
                    .into_iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(params("/", "/"), Some(vec![]));
        assert_eq!(params("/", "/a"), None);
        assert_eq!(params("/a", "/a/"), None);
        assert_eq!(params("/a/", "/a/"), Some(vec![]));
        assert_eq!(params("/orders/{id}", "/orders/7"), Some(vec!["id=7".into()]));
        assert_eq!(params("/orders/{id}", "/orders/"), None);
        assert_eq!(params("/orders/{id}", "/orders/7/x"), None);
        assert_eq!(params("/f/{p...}", "/f/a/b/"), Some(vec!["p=a/b/".into()]));
        assert_eq!(params("/f/{p...}", "/f/"), Some(vec!["p=".into()]));
        assert_eq!(params("/f/{p...}", "/f"), None);
        assert_eq!(params("/{p...}", "/"), Some(vec!["p=".into()]));
        assert_eq!(params("/a", "a"), None);
    }

    #[test]
    fn the_most_specific_sorts_first() {
        let mut all = [
            "/{rest...}",
            "/orders",
            "GET /orders",
            "/orders/{id}",
            "/orders/new",
            "/orders/{rest...}",
            "shop.example/{rest...}",
            "POST /orders/{id}",
        ]
        .map(pattern);
        all.sort();
        let sorted: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            sorted,
            [
                "shop.example/{rest...}",
                "GET /orders",
                "/orders",
                "/orders/new",
                "POST /orders/{id}",
                "/orders/{id}",
                "/orders/{rest...}",
                "/{rest...}",
            ]
        );
    }

    #[test]
    fn names_of_parameters_make_no_other_route() {
        assert!(pattern("GET /a/{x}").same_requests(&pattern("GET /a/{y}")));
        assert!(!pattern("GET /a/{x}").same_requests(&pattern("GET /a/{x...}")));
        assert!(!pattern("GET /a/{x}").same_requests(&pattern("/a/{x}")));
        assert!(!pattern("/a/b").same_requests(&pattern("/a/c")));
    }

    #[test]
    fn apps_may_mean_the_same_by_other_letters_and_a_last_slash() {
        let could = |text: &str, path: &str| pattern(text).could_mean(path);
        for path in ["/a/special/7", "/A/Special/7", "/a/special/7/", "/a/SPECIAL/x/"] {
            assert!(could("/a/special/{id}", path), "{path}");
        }
        for path in ["/a/special", "/a/special/", "/a/special/7/8", "/a/specials/7", "/a"] {
            assert!(!could("/a/special/{id}", path), "{path}");
        }
        assert!(could("/", "/") && could("/a/", "/A") && could("/a", "/a/") && !could("/", "/a"));
        assert!(could("/caf%C3%A9/{rest...}", "/CAFÉ/x/y") && could("/f/{rest...}", "/f/"));
    }

    #[test]
    fn patterns_meet_where_one_path_could_mean_both() {
        let meet = |one: &str, two: &str| {
            let (one, two) = (pattern(one), pattern(two));
            assert_eq!(one.could_meet(&two), two.could_meet(&one));
            one.could_meet(&two)
        };
        assert!(meet("POST /a/special/{id}", "POST /a/{rest...}"));
        assert!(meet("/a/{x}", "/A/b/") && meet("/{x}/b", "/a/{y}") && meet("/a", "/a/{rest...}"));
        assert!(!meet("POST /a/{x}", "GET /a/{x}") && !meet("/a/{x}", "/b/{rest...}"));
        assert!(!meet("/a", "/a/{x}") && !meet("/a/b", "/a/c"));
    }

    #[test]
    fn what_is_no_match_says_what_to_write() {
        assert_eq!(refused("post /a"), "methods are in upper case: write `POST` instead of `post`");
        assert!(refused("POST").contains("\"[METHOD] [HOST]/PATH\""));
        assert!(refused("POST shop.example").contains("has no path"));
        assert!(refused("PO(ST /a").contains("not a method"));
        assert!(refused("shop.example:80/a").contains("has no port"));
        assert!(refused("*.example/a").contains("one whole name"));
        assert!(refused("/a/{rest...}/b").contains("only stand at the end"));
        assert!(refused("/a/{x}/{x}").contains("twice"));
        assert!(refused("/a/x{y}").contains("whole segment"));
        assert!(refused("/a/{}").contains("letters, digits"));
        assert!(refused("/a//b").contains("empty segment"));
        assert!(refused("/a/../b").contains("free of dots"));
        assert!(refused("/a%2Fb").contains("encoded slash"));
        assert!(refused("/a?b=1").contains("leave out `?b=1`"));
        for text in ["", " ", "POST  ", "GET /a b c", "/a/%FF", "é/a", "[1]/a"] {
            refused(text);
        }
    }
}
