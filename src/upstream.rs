//! The app: its addresses, whether it answers, and one exchange with it.
//!
//! Does not know that a stand-in or a store exists. [`Upstream`] is shared by all threads; [`Connections`] belong to
//! one thread.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;

use crate::{
    config::UpstreamConfig,
    store::{Certainty, Reason},
    time::UnixMillis,
};

/// What all threads share of one upstream: endpoints, breaker, whether it was ever seen to answer.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub config: UpstreamConfig,
}

/// What standin thinks of an upstream; published on a watch channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Never seen to answer since start.
    Unknown,
    Up,
    /// The breaker is open.
    Down {
        since: UnixMillis,
        cause: String,
    },
    /// The breaker is half-open: trials are let through.
    Probing {
        since: UnixMillis,
        cause: String,
    },
}

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
    /// Our own trouble (files, memory): no failure of the app.
    #[error("standin could not try: {cause}")]
    Ourselves { cause: String },
    #[error("the breaker is open")]
    BreakerOpen { retry_after: Duration },
}

impl UpstreamError {
    /// What the attempt left behind: may the app have seen the request?
    pub fn certainty(&self) -> Certainty {
        match self {
            Self::Connect { .. } | Self::Ourselves { .. } | Self::BreakerOpen { .. } => {
                Certainty::NotSent
            }
            Self::Reset { sent, .. } if !sent => Certainty::NotSent,
            Self::Timeout { .. }
            | Self::Reset { .. }
            | Self::Invalid { .. }
            | Self::Client { .. } => Certainty::SentUnknown,
        }
    }

    /// The reason a stand-in would have; none where the app is not to blame.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Connect { .. } => Some(Reason::ConnectFailed),
            Self::Timeout { .. } => Some(Reason::TimedOut),
            Self::Reset { .. } | Self::Invalid { .. } => Some(Reason::Reset),
            Self::BreakerOpen { .. } => Some(Reason::BreakerOpen),
            Self::Client { .. } | Self::Ourselves { .. } => None,
        }
    }
}

/// An answer read whole.
#[derive(Clone, Debug)]
pub struct WholeAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Up to the limit given; `truncated` if there was more.
    pub body: Bytes,
    pub truncated: bool,
}

impl Upstream {
    pub fn new(name: &str, config: UpstreamConfig) -> Arc<Self> {
        Arc::new(Self { name: name.into(), config })
    }

    /// Follows what is thought of it.
    pub fn condition(&self) -> tokio::sync::watch::Receiver<Condition> {
        unimplemented!()
    }
}

/// One thread's connections to one upstream.
#[derive(Clone, Debug)]
pub struct Connections {
    #[expect(dead_code, reason = "contract")]
    upstream: Rc<Arc<Upstream>>,
}

impl Connections {
    pub fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream: Rc::new(upstream) }
    }

    /// One exchange with a request and an answer that are whole (replays, health). Asks the breaker first
    /// (`BreakerOpen`), and tells it how it went. Dropping the future ends the exchange (`sent_unknown`).
    pub async fn exchange_whole(
        &self,
        _request: Request<Full<Bytes>>,
        _timeout: Duration,
        _answer_limit: usize,
    ) -> Result<WholeAnswer, UpstreamError> {
        unimplemented!()
    }
}
