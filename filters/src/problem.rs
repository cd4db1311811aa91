//! No filter: the honest error, the one place that words what standin itself answers when it cannot help.
//!
//! RFC 9457 (`application/problem+json`), RFC 9110 10.2.3 (`Retry-After`), RFC 9209 (`Proxy-Status`).

use std::{borrow::Cow, fmt::Write as _, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Map, Value};

/// RFC 9209.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// An error answer in the making.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    title: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
    proxy_status: ProxyStatus,
    members: Map<String, Value>,
}

impl Problem {
    /// `title` says what kind of problem it is, the same for each occurrence.
    pub fn new(status: StatusCode, title: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            title: title.into(),
            detail: None,
            retry_after: None,
            proxy_status: ProxyStatus::default(),
            members: Map::new(),
        }
    }

    /// What is particular to this occurrence. Seen by the client: no addresses, no bodies.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// When to try again; sent in whole seconds, rounded up, at least 1.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    pub fn proxy_status(mut self, status: impl Into<ProxyStatus>) -> Self {
        self.proxy_status = status.into();
        self
    }

    /// An extension member (RFC 9457 3.2), for example `request_id`.
    pub fn member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The answer; its body converts to any body type that can be made from `Full<Bytes>`.
    pub fn into_response<B: From<Full<Bytes>>>(self) -> Response<B> {
        let mut response = Response::new(B::from(Full::new(self.body())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        headers.insert(PROXY_STATUS, self.proxy_status.to_value());
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after).into());
        }
        response
    }

    fn body(&self) -> Bytes {
        let mut body = Map::new();
        body.insert("type".to_owned(), "about:blank".into());
        body.insert("title".to_owned(), self.title.as_ref().into());
        body.insert("status".to_owned(), self.status.as_u16().into());
        if let Some(detail) = &self.detail {
            body.insert("detail".to_owned(), detail.as_ref().into());
        }
        for (name, value) in &self.members {
            body.entry(name.as_str()).or_insert_with(|| value.clone());
        }
        Value::Object(body).to_string().into()
    }
}

/// The value of `Proxy-Status` for an answer that standin made: an honest error or a stand-in answer.
#[derive(Clone, Debug, Default)]
pub struct ProxyStatus {
    error: Option<ProxyError>,
    received_status: Option<StatusCode>,
    details: Option<Cow<'static, str>>,
}

impl ProxyStatus {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn error(mut self, error: ProxyError) -> Self {
        self.error = Some(error);
        self
    }

    /// The status that the app answered with, where it did.
    pub fn received_status(mut self, status: StatusCode) -> Self {
        self.received_status = Some(status);
        self
    }

    /// For people; anything but printable ASCII is replaced, and the length is bounded.
    pub fn details(mut self, details: impl Into<Cow<'static, str>>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// `standin; error=connection_refused; details="…"`
    pub fn to_value(&self) -> HeaderValue {
        // Mostly just what it takes: a value that is longer than its room is copied once more.
        let details =
            self.details.as_ref().map_or(0, |details| "; details=\"\"".len() + details.len());
        let error = self.error.map_or(0, |error| "; error=".len() + error.as_str().len());
        let received =
            if self.received_status.is_some() { "; received-status=123".len() } else { 0 };
        let mut text = String::with_capacity("standin".len() + error + received + details);
        text.push_str("standin");
        if let Some(error) = self.error {
            text.push_str("; error=");
            text.push_str(error.as_str());
        }
        if let Some(status) = self.received_status {
            // Writing to a String cannot fail.
            let _ = write!(text, "; received-status={}", status.as_u16());
        }
        if let Some(details) = &self.details {
            text.push_str("; details=");
            push_structured_string(&mut text, details);
        }
        HeaderValue::try_from(text).expect("only printable ASCII was written")
    }
}

impl From<ProxyError> for ProxyStatus {
    fn from(error: ProxyError) -> Self {
        Self::new().error(error)
    }
}

/// The error types of RFC 9209 2.3 that standin has a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    DnsError,
    DestinationUnavailable,
    ConnectionRefused,
    ConnectionTerminated,
    ConnectionTimeout,
    ConnectionReadTimeout,
    ConnectionWriteTimeout,
    ConnectionLimitReached,
    /// standin answers with a 4xx in the app's stead.
    HttpRequestError,
    /// standin refuses to take the request on: overload, policy.
    HttpRequestDenied,
    HttpResponseIncomplete,
    HttpResponseTimeout,
    HttpUpgradeFailed,
    HttpProtocolError,
    /// standin answers without having asked the app.
    ProxyInternalResponse,
    ProxyInternalError,
    ProxyConfigurationError,
    ProxyLoopDetected,
}

impl ProxyError {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DnsError => "dns_error",
            Self::DestinationUnavailable => "destination_unavailable",
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTerminated => "connection_terminated",
            Self::ConnectionTimeout => "connection_timeout",
            Self::ConnectionReadTimeout => "connection_read_timeout",
            Self::ConnectionWriteTimeout => "connection_write_timeout",
            Self::ConnectionLimitReached => "connection_limit_reached",
            Self::HttpRequestError => "http_request_error",
            Self::HttpRequestDenied => "http_request_denied",
            Self::HttpResponseIncomplete => "http_response_incomplete",
            Self::HttpResponseTimeout => "http_response_timeout",
            Self::HttpUpgradeFailed => "http_upgrade_failed",
            Self::HttpProtocolError => "http_protocol_error",
            Self::ProxyInternalResponse => "proxy_internal_response",
            Self::ProxyInternalError => "proxy_internal_error",
            Self::ProxyConfigurationError => "proxy_configuration_error",
            Self::ProxyLoopDetected => "proxy_loop_detected",
        }
    }
}

/// RFC 9651 3.3.3: a string holds printable ASCII, with `"` and `\` escaped.
fn push_structured_string(to: &mut String, text: &str) {
    to.push('"');
    // Most have nothing to be replaced.
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    // Without an early end: it is looked through in blocks.
    let all_plain = || text.bytes().fold(true, |plain, byte| plain & is_plain(byte));
    if text.len() <= LONGEST_DETAILS && all_plain() {
        to.push_str(text);
        to.push('"');
        return;
    }
    for char in text.chars().take(LONGEST_DETAILS) {
        match char {
            '"' | '\\' => to.extend(['\\', char]),
            ' '..='~' => to.push(char),
            _ => to.push('?'),
        }
    }
    to.push('"');
}

fn whole_seconds(span: Duration) -> u64 {
    let up = u64::from(span.subsec_nanos() > 0);
    span.as_secs().saturating_add(up).max(1)
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const LONGEST_DETAILS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{only, text};

    #[tokio::test]
    async fn a_problem_has_all_its_fields() {
        let response: Response<Full<Bytes>> =
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The app does not answer")
                .detail("It said \"no\".")
                .retry_after(Duration::from_millis(1500))
                .proxy_status(
                    ProxyStatus::from(ProxyError::ConnectionRefused)
                        .details("not \"sent\" \\ ü\r\n"),
                )
                .member("request_id", "abc")
                .member("status", 1)
                .into_response();
        assert_eq!(response.status(), 503);
        let headers = response.headers();
        assert_eq!(only(headers, "content-type"), "application/problem+json");
        assert_eq!(only(headers, "cache-control"), "no-store");
        assert_eq!(only(headers, "retry-after"), "2");
        assert_eq!(
            only(headers, "proxy-status"),
            r#"standin; error=connection_refused; details="not \"sent\" \\ ???""#
        );
        assert_eq!(
            text(response.into_body()).await,
            r#"{"type":"about:blank","title":"The app does not answer","status":503,"detail":"It said \"no\".","request_id":"abc"}"#
        );
    }

    #[test]
    fn proxy_status_alone() {
        assert_eq!(ProxyStatus::new().to_value(), "standin");
        let status = ProxyStatus::from(ProxyError::ProxyInternalResponse)
            .received_status(StatusCode::BAD_GATEWAY);
        assert_eq!(
            status.to_value(),
            "standin; error=proxy_internal_response; received-status=502"
        );
        let long = ProxyStatus::new().details("x".repeat(10_000)).to_value();
        assert!(long.len() < 300);
    }

    #[test]
    fn retry_after_is_never_zero() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
    }
}
