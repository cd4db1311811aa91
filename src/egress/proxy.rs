//! One egress proxy: where it is, what it is called, how it knows us. Shows neither user nor password.

use std::{fmt, sync::Arc};

use http::{HeaderValue, uri::Authority};
use percent_encoding::percent_decode_str;

use crate::admin::base64;

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// By which people, lists and metrics call it: `HOST:PORT` unless it was given one.
    pub name: Arc<str>,
    /// `HOST:PORT`
    pub authority: Arc<str>,
    /// `Proxy-Authorization`, if it wants one.
    authorization: Option<HeaderValue>,
    /// Routes to which it belongs alone; all when empty.
    pub only_for: Vec<String>,
}

/// User and password for proxies whose URL has none.
#[derive(Clone, Default)]
pub struct Credentials(Option<(String, String)>);

/// What is wrong with a proxy's URL. Shows nothing of what stands before an `@`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProxyFault(String);

impl Proxy {
    /// From `http://[USER:PASSWORD@]HOST:PORT[#NAME]`; user and password percent-encoded.
    pub fn parse(
        url: &str,
        credentials: &Credentials,
        only_for: &[String],
    ) -> Result<Self, ProxyFault> {
        let shown = || url.rsplit('@').next().unwrap_or_default().escape_debug().to_string();
        let fault = |what: &str| Err(ProxyFault(format!("`{}` {what}; {FORM}", shown())));
        if url.len() > LONGEST_URL {
            return Err(ProxyFault(format!("longer than {LONGEST_URL} bytes; {FORM}")));
        }
        let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let rest = match scheme.as_deref() {
            Some("http") => &url["http://".len()..],
            Some("https" | "socks5" | "socks4" | "socks5h") => {
                return fault("is not spoken: standin speaks plain HTTP to an egress proxy");
            }
            _ => return fault("does not start with http://"),
        };
        let (rest, name) =
            rest.split_once('#').map_or((rest, None), |(rest, name)| (rest, Some(name)));
        let (user, place) =
            rest.rsplit_once('@').map_or((None, rest), |(user, place)| (Some(user), place));
        let place = place.strip_suffix('/').unwrap_or(place);
        let Ok(authority) = place.parse::<Authority>() else { return fault("is not HOST:PORT") };
        if !matches!(authority.port_u16(), Some(1..)) || authority.host().is_empty() {
            return fault("has no port");
        }
        let name = name.unwrap_or(place);
        if !is_name(name) {
            return fault(
                "has a name that is none: letters, digits, `-`, `_`, `.`, at most 128 of them",
            );
        }
        let own = user.map(user_and_password).transpose()?;
        let authorization = match own.as_ref().or(credentials.0.as_ref()) {
            Some((user, password)) => Some(basic(user, password)?),
            None => None,
        };
        Ok(Self {
            name: name.into(),
            authority: place.into(),
            authorization,
            only_for: only_for.to_vec(),
        })
    }

    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The same proxy under the same name, though its credentials or routes may differ.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        self.name == other.name && self.authority == other.authority
    }
}

impl Credentials {
    pub fn new(user: Option<&str>, password: Option<&str>) -> Self {
        Self(user.map(|user| (user.to_owned(), password.unwrap_or_default().to_owned())))
    }
}

/// Names stand in metrics, lists and addresses of the admin API.
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:[]".contains(&byte);
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(fits)
}

fn user_and_password(text: &str) -> Result<(String, String), ProxyFault> {
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(|text| text.into_owned())
            .map_err(|_| ProxyFault("its user or password is not UTF-8".to_owned()))
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok((decoded(user)?, decoded(password)?))
}

/// RFC 7617.
fn basic(user: &str, password: &str) -> Result<HeaderValue, ProxyFault> {
    if user.contains(':') {
        return Err(ProxyFault("a user has no `:` in it".to_owned()));
    }
    let pair = base64::encode(format!("{user}:{password}").as_bytes());
    let mut value = HeaderValue::from_str(&format!("Basic {pair}"))
        .map_err(|_| ProxyFault("its user and password do not fit into a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} at {})", self.name, self.authority)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

const FORM: &str = "write for example \"http://10.0.0.9:3128\"";
const LONGEST_URL: usize = 2048;
const LONGEST_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Proxy, ProxyFault> {
        Proxy::parse(url, &Credentials::default(), &[])
    }

    #[test]
    fn a_url_has_a_place_and_may_have_a_user_and_a_name() {
        let plain = parse("http://10.0.0.9:3128").unwrap();
        assert_eq!((&*plain.name, &*plain.authority), ("10.0.0.9:3128", "10.0.0.9:3128"));
        assert!(plain.authorization().is_none());
        let named = parse("HTTP://anna:p%40ss%3A1@gate.example:7777/#de-1").unwrap();
        assert_eq!((&*named.name, &*named.authority), ("de-1", "gate.example:7777"));
        assert_eq!(named.authorization().unwrap(), "Basic YW5uYTpwQHNzOjE=");
        assert_eq!(&*parse("http://[::1]:3128").unwrap().name, "[::1]:3128");
    }

    #[test]
    fn the_pools_user_is_for_proxies_without_their_own() {
        let pool = Credentials::new(Some("pool"), Some("secret"));
        let without = Proxy::parse("http://a:1", &pool, &[]).unwrap();
        assert_eq!(without.authorization().unwrap(), "Basic cG9vbDpzZWNyZXQ=");
        let own = Proxy::parse("http://me:own@a:1", &pool, &[]).unwrap();
        assert_eq!(own.authorization().unwrap(), "Basic bWU6b3du");
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_no_password_is_shown() {
        for url in [
            "",
            "a:1",
            "http://",
            "http://a",
            "http://a:0",
            "http://a:99999",
            "http://:1",
            "https://a:1",
            "socks5://a:1",
            "http://a:1/path",
            "http://a:1?x",
            "http://a b:1",
            "http://a:1#",
            "http://a:1#b/c",
            "http://u:hunter2@a",
            "https://u:hunter2@a:1",
            "http://u:hunter2@a:1#?",
            "u:hunter2@a:1",
            "http://u%3Av:hunter2@a:1",
            "http://u:hunter2%ff@a:1",
        ] {
            let fault = parse(url).expect_err(url).to_string();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }

    #[test]
    fn debug_shows_no_password() {
        let proxy = parse("http://anna:hunter2@a:1").unwrap();
        let shown = format!("{proxy:?} {:?}", proxy.authorization());
        assert!(!shown.contains("hunter2") && !shown.contains("YW5u"), "{shown}");
    }
}
