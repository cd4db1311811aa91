//! Reads a list of proxies: one URL per line, or JSON. Whole or not at all.

use std::collections::HashSet;

use serde::Deserialize;

use super::proxy::{Credentials, Proxy, ProxyFault};

/// One proxy of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) proxy: Proxy,
    /// It is to finish its sessions and take nothing new.
    pub(super) draining: bool,
}

/// Why a list is refused. Shows no credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListFault {
    #[error("it is larger than {LARGEST_LIST} bytes")]
    TooLarge,
    #[error("it is not UTF-8 text")]
    NotText,
    #[error(
        "it is no JSON list of URLs or of {{\"url\", \"name\", \"only_for\", \"state\"}}: line {0}"
    )]
    NotJson(usize),
    #[error("it has more than {MOST_PROXIES} proxies")]
    TooMany,
    /// Would retire every proxy, and is what a half-written file looks like.
    #[error("it is empty")]
    Empty,
    #[error("proxy {0}: {1}")]
    Proxy(usize, ProxyFault),
    #[error("proxy {0}: `{1}` is there twice; give each a name: http://HOST:PORT#NAME")]
    Twice(usize, String),
}

/// Most proxies of a pool.
pub const MOST_PROXIES: usize = 1024;
/// Most bytes of a list.
pub const LARGEST_LIST: usize = 1 << 20;

/// All proxies of a list.
pub(super) fn read(bytes: &[u8], credentials: &Credentials) -> Result<Vec<Listed>, ListFault> {
    if bytes.len() > LARGEST_LIST {
        return Err(ListFault::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ListFault::NotText)?;
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let items = if text.starts_with('[') { of_json(text)? } else { of_lines(text) };
    if items.len() > MOST_PROXIES {
        return Err(ListFault::TooMany);
    }
    let (mut listed, mut names) = (Vec::with_capacity(items.len()), HashSet::new());
    for (at, item) in items.into_iter().enumerate() {
        let one = item.proxy(credentials).map_err(|fault| ListFault::Proxy(at + 1, fault))?;
        if !names.insert(one.proxy.name.clone()) {
            return Err(ListFault::Twice(at + 1, one.proxy.name.to_string()));
        }
        listed.push(one);
    }
    if listed.is_empty() { Err(ListFault::Empty) } else { Ok(listed) }
}

/// `[…]`, each a URL or an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Url(String),
    Object(Object),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    url: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    only_for: Vec<String>,
    #[serde(default)]
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    #[default]
    Active,
    Draining,
}

impl Item {
    fn proxy(self, credentials: &Credentials) -> Result<Listed, ProxyFault> {
        match self {
            Self::Url(url) => {
                Ok(Listed { proxy: Proxy::parse(&url, credentials, &[])?, draining: false })
            }
            Self::Object(Object { mut url, name, only_for, state }) => {
                if let Some(name) = name {
                    url.truncate(url.find('#').unwrap_or(url.len()));
                    url = format!("{url}#{name}");
                }
                let proxy = Proxy::parse(&url, credentials, &only_for)?;
                Ok(Listed { proxy, draining: matches!(state, State::Draining) })
            }
        }
    }
}

fn of_json(text: &str) -> Result<Vec<Item>, ListFault> {
    // Its own words would quote the list.
    serde_json::from_str(text).map_err(|error| ListFault::NotJson(error.line()))
}

/// Empty lines and lines that begin with `#` say nothing.
fn of_lines(text: &str) -> Vec<Item> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.take(MOST_PROXIES + 1).map(|line| Item::Url(line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Result<Vec<String>, ListFault> {
        let listed = read(text.as_bytes(), &Credentials::default())?;
        Ok(listed.iter().map(|one| one.proxy.name.to_string()).collect())
    }

    #[test]
    fn lines_and_json_say_the_same() {
        let lines = "# ours\nhttp://a:1\n\n  http://u:p@b:2#two\r\n";
        assert_eq!(names(lines).unwrap(), ["a:1", "two"]);
        let json = r#" ["http://a:1", {"url": "http://u:p@b:2", "name": "two", "only_for": ["x"], "state": "draining"}]"#;
        assert_eq!(names(json).unwrap(), ["a:1", "two"]);
        let two = read(json.as_bytes(), &Credentials::default()).unwrap().remove(1);
        assert_eq!((two.draining, &*two.proxy.only_for), (true, &["x".to_owned()][..]));
    }

    #[test]
    fn one_fault_refuses_all_of_it_and_shows_no_password() {
        let many = "http://a:1\n".repeat(MOST_PROXIES + 1);
        let long = vec![b'#'; LARGEST_LIST + 1];
        for (text, part) in [
            ("", "empty"),
            ("# nothing\n", "empty"),
            ("[]", "empty"),
            ("http://a:1\nhttp://u:hunter2@b", "proxy 2"),
            ("http://a:1\nhttp://u:hunter2@a:1", "there twice"),
            ("[\"http://a:1\", {\"url\": \"http://u:hunter2@b:1\", \"hunter2\": 1}]", "line 1"),
            ("[\"http://a:1\", 7]", "no JSON list"),
            ("[\"http://a:1\"", "no JSON list"),
            ("{\"proxies\": []}", "proxy 1"),
            ("[{\"url\": \"http://u:hunter2@b:1\", \"state\": \"hunter2\"}]", "no JSON list"),
            (&many, "more than 1024"),
        ] {
            let fault = names(text).expect_err(text).to_string();
            assert!(fault.contains(part) && !fault.contains("hunter2"), "{text}: {fault}");
        }
        assert_eq!(read(&long, &Credentials::default()), Err(ListFault::TooLarge));
        assert_eq!(read(b"http://a:1\n\xff", &Credentials::default()), Err(ListFault::NotText));
    }
}
