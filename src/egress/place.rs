//! Where the list that is followed lies: a file, or an address that answers with it.

use std::{path::PathBuf, str::FromStr};

use http::uri::{Authority, PathAndQuery};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListPlace {
    File(PathBuf),
    /// Asked by GET, directly.
    At {
        is_https: bool,
        authority: Authority,
        target: PathAndQuery,
    },
}

impl FromStr for ListPlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
            return Ok(Self::File(path.into()));
        }
        let shown = text.rsplit('@').next().unwrap_or_default().escape_debug();
        let is_https = text.starts_with("https://");
        let Some(rest) = text.strip_prefix(if is_https { "https://" } else { "http://" }) else {
            return Err(format!("`{shown}`: {FORM}"));
        };
        let (place, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority: Option<Authority> = place.parse().ok();
        let target: Option<PathAndQuery> =
            if target.is_empty() { "/" } else { target }.parse().ok();
        match (authority, target) {
            (Some(authority), _) if authority.as_str().contains('@') => {
                Err(format!("`{shown}`: an address has no user and no password; {FORM}"))
            }
            (Some(authority), Some(target)) if !authority.host().is_empty() => {
                Ok(Self::At { is_https, authority, target })
            }
            _ => Err(format!("`{shown}` is no address; {FORM}")),
        }
    }
}

const FORM: &str = "write \"file:PATH\" or \"https://HOST:PORT/PATH\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_an_address() {
        assert_eq!("file:ways.txt".parse(), Ok(ListPlace::File("ways.txt".into())));
        let Ok(ListPlace::At { is_https: false, authority, target }) =
            "http://ways.example:81/all?x=1".parse()
        else {
            panic!()
        };
        assert_eq!((authority.as_str(), target.as_str()), ("ways.example:81", "/all?x=1"));
        for text in
            ["", "file:", "ways.txt", "http://", "http:///x", "http://u:hunter2@a/x", "ftp://a/b"]
        {
            let fault = text.parse::<ListPlace>().expect_err(text);
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
