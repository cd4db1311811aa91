//! What stands between standin and the app, as far as its answers give it away.
//!
//! Recognises, and warns once. What an answer means is said by `endpoint_is`, never by a guess.

use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, StatusCode, header};

use super::{Upstream, in_flight};
use crate::{config::EndpointIs, store::Reason};

/// The sign of a proxy where the configuration says that there is none.
#[derive(Debug, Default)]
pub(super) struct Between(Mutex<Option<String>>);

/// Products that sign answers as `Server` and are proxies, in lower case; Envoy signs as its mesh likes, `…envoy`.
const PROXIES: [&str; 13] = [
    "nginx",
    "openresty",
    "haproxy",
    "traefik",
    "caddy",
    "varnish",
    "awselb",
    "linkerd",
    "kong",
    "squid",
    "ats",
    "cloudflare",
    "apisix",
];

/// Envoy sets it on what it passes on, and not on what it says itself.
const PASSED_ON_BY_ENVOY: &str = "x-envoy-upstream-service-time";

impl Upstream {
    /// An error that a proxy made itself because it got no answer from the app: what no answer would have been.
    pub fn own_error_of_a_proxy(&self, status: StatusCode, headers: &HeaderMap) -> Option<Reason> {
        if self.config.endpoint_is != EndpointIs::Proxy
            || !in_flight::is_gateways(status)
            || headers.contains_key(PASSED_ON_BY_ENVOY)
        {
            return None;
        }
        Some(if status == StatusCode::GATEWAY_TIMEOUT { Reason::TimedOut } else { Reason::Reset })
    }

    /// Looks at an answer for signs of a proxy that the configuration does not know of. Answers to health questions and
    /// errors of gateways are enough to find one, so that the others cost nothing.
    pub(super) fn look_for_proxy(&self, headers: &HeaderMap) {
        if self.config.endpoint_is == EndpointIs::Proxy {
            return;
        }
        let Some(sign) = proxy_in(headers) else { return };
        let mut found = self.between.0.lock().unwrap_or_else(PoisonError::into_inner);
        if found.is_none() {
            tracing::warn!(
                upstream = &*self.name,
                sign,
                "its answers look like a proxy's, and `endpoint_is` says \"app\": a connection that succeeds may not \
                 mean that the app is there; set endpoint_is = \"proxy\" if something stands between"
            );
            *found = Some(sign);
        }
    }

    /// The sign of a proxy that the configuration does not know of.
    pub fn unexpected_proxy(&self) -> Option<String> {
        self.between.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Over a reload: who was warned of is not warned of again, as long as the addresses are the same.
    pub(super) fn knows_what_is_between(&self, before: &Self) {
        let (is, was) = (&self.config, &before.config);
        if is.endpoint_is == EndpointIs::App && is.endpoints == was.endpoints {
            *self.between.0.lock().unwrap_or_else(PoisonError::into_inner) =
                before.unexpected_proxy();
        }
    }
}

/// Who seems to have had the answer in hand besides the app.
fn proxy_in(headers: &HeaderMap) -> Option<String> {
    let says = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(via) = says(header::VIA) {
        return Some(format!("Via: {}", short(via)));
    }
    if headers.contains_key(PASSED_ON_BY_ENVOY) {
        return Some(PASSED_ON_BY_ENVOY.to_owned());
    }
    let server = says(header::SERVER)?;
    let product = server.split(['/', ' ']).next().unwrap_or_default().to_ascii_lowercase();
    let is_proxy = product.ends_with("envoy") || PROXIES.contains(&&*product);
    is_proxy.then(|| format!("Server: {}", short(server)))
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamConfig;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn proxies_sign_what_they_pass_on() {
        let found = |name, value| proxy_in(&headers(name, value));
        assert_eq!(found("via", "1.1 varnish").as_deref(), Some("Via: 1.1 varnish"));
        assert_eq!(found(PASSED_ON_BY_ENVOY, "3").as_deref(), Some(PASSED_ON_BY_ENVOY));
        for server in ["envoy", "istio-envoy", "nginx/1.27.0", "nginx", "HAProxy", "awselb/2.0"] {
            assert_eq!(found("server", server), Some(format!("Server: {server}")));
        }
        for app in ["gunicorn", "uvicorn", "Kestrel", "Apache/2.4 (nginx)", "Boats/1", ""] {
            assert_eq!(found("server", app), None);
        }
        assert_eq!(found("date", "nginx"), None);
        assert!(found("via", Box::leak("x".repeat(9000).into_boxed_str())).unwrap().len() < 100);
    }

    #[test]
    fn only_where_a_proxy_is_declared_its_own_errors_are_no_answers() {
        let upstream = |endpoint_is| {
            let endpoints = vec!["http://127.0.0.1:1".to_owned()];
            Upstream::new("a", UpstreamConfig { endpoints, endpoint_is, ..Default::default() })
        };
        let (app, proxy) = (upstream(EndpointIs::App), upstream(EndpointIs::Proxy));
        let (plain, passed_on) = (headers("server", "nginx"), headers(PASSED_ON_BY_ENVOY, "3"));
        for (status, reason) in [
            (502, Some(Reason::Reset)),
            (503, Some(Reason::Reset)),
            (504, Some(Reason::TimedOut)),
            (500, None),
            (429, None),
            (200, None),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(proxy.own_error_of_a_proxy(status, &plain), reason, "{status}");
            assert_eq!(proxy.own_error_of_a_proxy(status, &passed_on), None);
            assert_eq!(app.own_error_of_a_proxy(status, &plain), None);
        }
    }
}
