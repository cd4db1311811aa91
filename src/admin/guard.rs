//! Who may come in: credentials, Host, origin, and what every answer says about itself.
//!
//! - **Credentials.** With a token: `Authorization: Bearer TOKEN`, or Basic with any user name and the token as its
//!   password; the user name is who did it in the audit log. Digests are compared, in constant time. After ten wrong
//!   ones in a minute an address waits for the minute's end. Without a token (loopback only) Basic still gives a name.
//! - **Host** (DNS rebinding). A name that a stranger may own is refused with 421, whatever it resolves to.
//! - **Origin** (CSRF). The scheme of Go 1.25's CrossOriginProtection: a change is refused when `Sec-Fetch-Site` says
//!   another site, or, without that header, when there is an `Origin` that is not this host. Programs that send neither
//!   are no browsers and carry no ambient credentials. (`Origin` alone does not do: under `no-referrer` a browser sends
//!   `null` with our own forms.) And beyond that scheme: only page navigations may come from another site.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::{Ends, base64, problem::Problem, text};
use crate::config::AdminConfig;

/// What the configuration allows.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<[u8; 32]>,
    address: SocketAddr,
    hosts: Vec<String>,
    wrong: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

/// Who asks, as the audit log calls them.
#[derive(Clone, Debug)]
pub(crate) struct Who(pub(crate) String);

const WRONG_AT_MOST: u32 = 10;
const WRONG_WINDOW: Duration = Duration::from_secs(60);
const ADDRESSES_AT_MOST: usize = 1024;

impl Guard {
    pub(crate) fn new(config: &AdminConfig) -> Self {
        Self {
            token: config.token.as_ref().map(|token| Sha256::digest(token.0.as_bytes()).into()),
            address: config.address,
            hosts: config.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
            wrong: Mutex::default(),
        }
    }

    /// Who asks, or why they may not.
    fn who(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Who, Problem> {
        let sent = Credentials::of(headers);
        let Some(token) = &self.token else {
            return Ok(sent.map_or_else(|| Who("local".into()), |sent| sent.who));
        };
        if self.too_many_wrong(peer) {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many wrong tokens from this address: wait a minute",
            ));
        }
        match sent {
            Some(sent) if bool::from(sent.digest.ct_eq(token)) => Ok(sent.who),
            Some(sent) if !sent.is_empty => {
                self.count_wrong(peer);
                Err(Problem::new(StatusCode::UNAUTHORIZED, "wrong token"))
            }
            // A name without a password is what a program sends that has none.
            Some(_) | None => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "no token was sent: send that of [admin] as a bearer token, or as the password of any user name",
            )),
        }
    }

    fn too_many_wrong(&self, peer: IpAddr) -> bool {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong
            .get(&peer)
            .is_some_and(|(since, n)| *n >= WRONG_AT_MOST && since.elapsed() < WRONG_WINDOW)
    }

    fn count_wrong(&self, peer: IpAddr) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= ADDRESSES_AT_MOST {
            wrong.retain(|_, (since, _)| since.elapsed() < WRONG_WINDOW);
        }
        if wrong.len() >= ADDRESSES_AT_MOST {
            wrong.clear();
        }
        let (since, n) = wrong.entry(peer).or_insert((Instant::now(), 0));
        if since.elapsed() >= WRONG_WINDOW {
            (*since, *n) = (Instant::now(), 0);
        }
        *n += 1;
    }

    /// Whether the request came for a name that is ours.
    fn knows_host(&self, host: &str, local: IpAddr) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return ip.is_loopback() || ip == local || ip == self.address.ip();
        }
        name == "localhost" || self.hosts.iter().any(|own| *own == name || *own == host)
    }
}

/// What was sent as credentials.
struct Credentials {
    digest: [u8; 32],
    /// There is no token in them.
    is_empty: bool,
    who: Who,
}

impl Credentials {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(one), None) = (sent.next(), sent.next()) else { return None };
        let (scheme, value) = one.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::new(value.trim().as_bytes(), ""));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = String::from_utf8(base64::decode(value.trim())?).ok()?;
            let (user, password) = pair.split_once(':')?;
            return Some(Self::new(password.as_bytes(), user));
        }
        None
    }

    fn new(token: &[u8], user: &str) -> Self {
        let user: String = text::line(user).chars().take(64).collect();
        let who = if user.is_empty() { "token".to_owned() } else { user };
        Self { digest: Sha256::digest(token).into(), is_empty: token.is_empty(), who: Who(who) }
    }
}

/// The way of every admin request: Host, origin, credentials; then the handler knows [`Who`].
pub(crate) async fn check(
    State(guard): State<Arc<Guard>>,
    Extension(ends): Extension<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    let host = host(&request);
    if !host.as_deref().is_some_and(|host| guard.knows_host(host, ends.local.ip())) {
        let why = "this host name is not one of [admin] hosts";
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response();
    }
    if let Err(problem) = same_origin(&request, host.as_deref().unwrap_or_default()) {
        return problem.into_response();
    }
    match guard.who(request.headers(), ends.peer.ip()) {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(problem) => {
            let mut response = problem.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                let ask = HeaderValue::from_static("Basic realm=\"standin\", charset=\"UTF-8\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
            }
            response
        }
    }
}

/// The one host of a request; none if there are several, or they differ.
fn host(request: &Request) -> Option<String> {
    let mut sent = request.headers().get_all(header::HOST).iter();
    let (one, None) = (sent.next(), sent.next()) else { return None };
    let one = one?.to_str().ok()?.to_owned();
    match request.uri().authority() {
        Some(authority) if authority.as_str() != one => None,
        _ => Some(one),
    }
}

fn same_origin(request: &Request, host: &str) -> Result<(), Problem> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    let refused = |why| Err(Problem::new(StatusCode::FORBIDDEN, why));
    let from_here = matches!(header("sec-fetch-site"), None | Some(b"same-origin" | b"none"));
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        let opens_a_page = matches!(header("sec-fetch-mode"), None | Some(b"navigate"));
        if !from_here && !opens_a_page {
            return refused("another site may not read from here");
        }
        return Ok(());
    }
    match (header("sec-fetch-site"), header("origin")) {
        (Some(_), _) if from_here => Ok(()),
        (Some(_), _) => refused("another site may not change anything here"),
        (None, None) => Ok(()),
        (None, Some(origin)) if origin_host(origin) == Some(host) => Ok(()),
        (None, Some(_)) => refused("the Origin of this request is not this host"),
    }
}

fn origin_host(origin: &[u8]) -> Option<&str> {
    let origin = std::str::from_utf8(origin).ok()?;
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
}

/// What every answer says about itself, errors too.
pub(crate) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const HEADERS: [(&str, &str); 6] = [
    ("cache-control", "no-store"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AdminToken;

    fn guard(token: Option<&str>, hosts: &[&str]) -> Guard {
        Guard::new(&AdminConfig {
            token: token.map(|token| AdminToken(token.into())),
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            ..AdminConfig::default()
        })
    }

    fn headers(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        headers
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn the_token_opens_and_the_user_name_is_who() {
        let guard = guard(Some("s3cret"), &[]);
        assert_eq!(guard.who(&headers("Bearer s3cret"), HERE).unwrap().0, "token");
        assert_eq!(guard.who(&headers("Basic YW5uYTpzM2NyZXQ="), HERE).unwrap().0, "anna");
        assert_eq!(guard.who(&headers("Bearer s3cre"), HERE).unwrap_err().status, 401);
        assert_eq!(guard.who(&HeaderMap::new(), HERE).unwrap_err().status, 401);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_guesses_waits() {
        let guard = guard(Some("s3cret"), &[]);
        for _ in 0..WRONG_AT_MOST {
            assert_eq!(guard.who(&headers("Bearer x"), HERE).unwrap_err().status, 401);
        }
        assert_eq!(guard.who(&headers("Bearer s3cret"), HERE).unwrap_err().status, 429);
        tokio::time::advance(WRONG_WINDOW).await;
        assert!(guard.who(&headers("Bearer s3cret"), HERE).is_ok());
    }

    #[test]
    fn only_names_of_ours_are_known() {
        let guard = guard(None, &["ops.example", "ops2.example:9900"]);
        for host in [
            "localhost",
            "LOCALHOST:9900",
            "127.0.0.1:1",
            "[::1]:9900",
            "ops.example:1",
            "ops2.example:9900",
        ] {
            assert!(guard.knows_host(host, HERE), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "a@localhost",
            "",
            "localhost.evil",
        ] {
            assert!(!guard.knows_host(host, HERE), "{host}");
        }
        assert!(guard.knows_host("10.0.0.1:9900", "10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn another_site_changes_nothing() {
        let ask = |method: Method, sent: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).uri("/x");
            for (name, value) in sent {
                request = request.header(*name, *value);
            }
            same_origin(&request.body(axum::body::Body::empty()).unwrap(), "localhost:9900").is_ok()
        };
        assert!(ask(Method::POST, &[]));
        assert!(ask(
            Method::POST,
            &[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:9900")]
        ));
        // A form of our own page, under the referrer policy of our own page.
        assert!(ask(Method::POST, &[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(!ask(Method::POST, &[("sec-fetch-site", "cross-site")]));
        assert!(!ask(Method::POST, &[("sec-fetch-site", "same-site")]));
        assert!(!ask(Method::POST, &[("origin", "http://evil.example")]));
        assert!(!ask(Method::POST, &[("origin", "null")]));
        assert!(!ask(Method::POST, &[("origin", "http://localhost:9901")]));
        assert!(ask(
            Method::GET,
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]
        ));
        assert!(!ask(
            Method::GET,
            &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]
        ));
    }
}
