//! Why there is no answer, who is to blame, and what the attempt left behind.

use std::{borrow::Cow, time::Duration};

use super::{bulkhead::Of, fault::Fault, request_body::Progress};
use crate::{
    store::{Certainty, Reason},
    tls::client::is_refusal_of_ours,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("could not connect to {endpoint}: {cause}")]
    Connect { endpoint: String, cause: String },
    #[error("no answer from {endpoint} within {limit:?}")]
    Timeout { endpoint: String, limit: Duration },
    /// The connection broke. `sent` is false when no byte of the request left.
    #[error("{endpoint} broke the connection: {cause}")]
    Reset { endpoint: String, cause: String, sent: bool },
    /// What the app sent is not HTTP, or not an answer to this request.
    #[error("{endpoint} sent no valid answer: {cause}")]
    Invalid { endpoint: String, cause: String },
    /// The client broke its own request body: no failure of the app.
    #[error("the client did not finish its request: {cause}")]
    Client { cause: String },
    /// Our own trouble (files, names, memory): no failure of the app.
    #[error("standin could not try: {cause}")]
    Ourselves { cause: String },
    /// No egress proxy led to the app, or one answered in its own name: our own trouble, no failure of the app. `sent`
    /// is false when no byte of the request can have reached the app.
    #[error("no way out: {cause}")]
    NoWayOut { cause: String, sent: bool, retry_after: Option<Duration> },
    #[error("{BREAKER_IS_OPEN}")]
    BreakerOpen { retry_after: Duration },
    /// No place in a bulkhead: no failure of the app.
    #[error("{limit} requests of this {of} are in flight")]
    Full { limit: usize, of: Of },
    /// There may be no more connections, and none became free: no failure of the app.
    #[error("no connection to {endpoint} is free: {cause}")]
    Crowded { endpoint: String, cause: String },
}

const BREAKER_IS_OPEN: &str = "the breaker is open";

impl UpstreamError {
    /// Its text. Of all that is said while an app is down nearly every one is this.
    pub fn in_words(&self) -> Cow<'static, str> {
        match self {
            Self::BreakerOpen { .. } => BREAKER_IS_OPEN.into(),
            other => other.to_string().into(),
        }
    }

    /// What the attempt left behind: may the app have seen the request?
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::Connect { .. }
            | Self::Ourselves { .. }
            | Self::BreakerOpen { .. }
            | Self::Full { .. }
            | Self::Crowded { .. } => Certainty::NotSent,
            Self::Reset { sent: false, .. } | Self::NoWayOut { sent: false, .. } => {
                Certainty::NotSent
            }
            Self::Timeout { .. }
            | Self::Reset { .. }
            | Self::Invalid { .. }
            | Self::NoWayOut { .. }
            | Self::Client { .. } => Certainty::SentUnknown,
        }
    }

    /// Whether it is evidence against the app.
    pub fn blames_the_app(&self) -> bool {
        !matches!(
            self,
            Self::Client { .. }
                | Self::Ourselves { .. }
                | Self::NoWayOut { .. }
                | Self::Full { .. }
                | Self::Crowded { .. }
        )
    }

    /// The reason a stand-in would have; none where the app is not to blame, unless a route may ask for it.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Connect { .. } => Some(Reason::ConnectFailed),
            Self::Timeout { .. } => Some(Reason::TimedOut),
            Self::Reset { .. } | Self::Invalid { .. } => Some(Reason::Reset),
            Self::BreakerOpen { .. } | Self::Full { .. } | Self::Crowded { .. } => {
                Some(Reason::BreakerOpen)
            }
            Self::NoWayOut { .. } => Some(Reason::NoWayOut),
            Self::Client { .. } | Self::Ourselves { .. } => None,
        }
    }

    /// From an exchange that broke off. A body that its client broke is looked for first: whatever the app or the
    /// connection then did, it was not the app's fault.
    pub(super) fn from_exchange(
        endpoint: String,
        fault: &Fault,
        sent: bool,
        progress: &Progress,
    ) -> Self {
        if let Some(fault) = progress.fault() {
            return Self::Client { cause: fault.to_string() };
        }
        match fault {
            Fault::Client => Self::Client { cause: fault.to_string() },
            Fault::Invalid(cause) => Self::Invalid { endpoint, cause: (*cause).to_owned() },
            // The app's word against our certificate comes after the handshake: a matter of configuration.
            Fault::Io(error) if is_refusal_of_ours(error) => {
                Self::Ourselves { cause: format!("TLS with {endpoint}: {error}") }
            }
            // What the app sent is not HTTP/2.
            Fault::Http2(error) if error.is_library() => {
                Self::Invalid { endpoint, cause: error.to_string() }
            }
            Fault::Closed | Fault::Io(_) | Fault::Http2(_) => {
                Self::Reset { endpoint, cause: fault.to_string(), sent }
            }
        }
    }
}
