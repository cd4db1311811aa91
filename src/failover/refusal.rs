//! The honest errors of the request path: what the client learns when nobody answers in the app's stead.

use std::time::Duration;

use filters::problem::{Problem, ProxyError, ProxyStatus};
use http::{Response, StatusCode};

use super::Answer;
use crate::{
    client_body::BodyFault, stand_in::identity::KeyFault, store::Certainty, upstream::UpstreamError,
};

/// Why the client gets an error of ours.
#[derive(Debug)]
pub enum Refusal {
    /// The app did not answer and standin does not answer for it. With what all attempts of its key left behind.
    NoAnswer(UpstreamError, Certainty),
    /// The client did not finish its request.
    Body(BodyFault),
    /// The client's `Idempotency-Key` cannot be used: why.
    BadKey(KeyFault),
    /// The key was used for another request.
    KeyReused,
    /// The same request is still under way.
    StillUnderWay,
    /// The request's sequence waits for a person.
    SequenceHeld,
    /// The same request was accepted before, and the app said no to it since.
    DeclinedBefore,
    /// The request was written, but whether it lives is not known.
    StoreFailed,
    /// A standby, or an app that is set aside: nobody is there to ask. With what earlier attempts may have left behind.
    NobodyToAsk(Certainty),
    /// The same request was accepted before, but its answer cannot be read now, or the two cannot be compared.
    AcceptedBefore,
}

impl Refusal {
    /// Whether the client can mend it.
    pub fn is_clients_fault(&self) -> bool {
        match self {
            Self::Body(_) | Self::BadKey(_) | Self::KeyReused | Self::StillUnderWay => true,
            Self::NoAnswer(error, _) => matches!(error, UpstreamError::Client { .. }),
            Self::SequenceHeld
            | Self::DeclinedBefore
            | Self::StoreFailed
            | Self::AcceptedBefore
            | Self::NobodyToAsk(_) => false,
        }
    }

    /// The answer in words. Addresses and causes stay in the log.
    pub fn into_response(self) -> Response<Answer> {
        match self {
            Self::NoAnswer(error, certainty) => no_answer(&error, certainty),
            Self::Body(fault) => body_fault(&fault),
            Self::BadKey(why) => Problem::new(StatusCode::BAD_REQUEST, "The Idempotency-Key cannot be used")
                .detail(why.to_string())
                .proxy_status(ProxyError::HttpRequestError),
            Self::KeyReused => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The Idempotency-Key was used for another request",
            )
            .detail("Send this request with a key of its own.")
            .proxy_status(ProxyError::HttpRequestError),
            Self::StillUnderWay => Problem::new(StatusCode::CONFLICT, "The same request is still under way")
                .detail("Ask again with the same key to learn how it ended.")
                .retry_after(SOON)
                .proxy_status(ProxyError::HttpRequestError),
            Self::SequenceHeld => Problem::new(StatusCode::CONFLICT, "An earlier request has to be settled first")
                .detail("Requests of this kind are applied in order, and an earlier one waits for a person.")
                .retry_after(LATER)
                .proxy_status(ProxyError::HttpRequestDenied),
            Self::DeclinedBefore => Problem::new(StatusCode::CONFLICT, "The same request was declined")
                .detail("It was accepted while the app was away, and the app declined it since.")
                .proxy_status(ProxyError::HttpRequestDenied),
            Self::StoreFailed => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The request may or may not be kept")
                .detail(UNKNOWN)
                .retry_after(LATER)
                .proxy_status(ProxyError::ProxyInternalError),
            Self::NobodyToAsk(certainty) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The app cannot be asked now")
                    .detail(said(certainty))
                    .retry_after(SOON)
                    .proxy_status(ProxyError::DestinationUnavailable)
            }
            Self::AcceptedBefore => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "The same request was accepted before")
                    .detail("Its answer cannot be given again now. Ask again with the same key; do not send it anew.")
                    .retry_after(SOON)
                    .proxy_status(ProxyError::ProxyInternalError)
            }
        }
        .into_response()
    }
}

const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(60);

fn no_answer(error: &UpstreamError, certainty: Certainty) -> Problem {
    let (status, title, proxy) = match error {
        UpstreamError::Connect { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The app cannot be reached",
            ProxyError::ConnectionRefused,
        ),
        UpstreamError::BreakerOpen { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The app is known to be down",
            ProxyError::DestinationUnavailable,
        ),
        UpstreamError::Full { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many requests of this kind are in flight",
            ProxyError::ConnectionLimitReached,
        ),
        UpstreamError::Crowded { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "All connections to the app are in use",
            ProxyError::ConnectionLimitReached,
        ),
        UpstreamError::Timeout { .. } => (
            StatusCode::GATEWAY_TIMEOUT,
            "The app did not answer in time",
            ProxyError::HttpResponseTimeout,
        ),
        UpstreamError::Reset { .. } => (
            StatusCode::BAD_GATEWAY,
            "The app broke the connection",
            ProxyError::ConnectionTerminated,
        ),
        UpstreamError::Invalid { .. } => (
            StatusCode::BAD_GATEWAY,
            "The app's answer is not valid HTTP",
            ProxyError::HttpProtocolError,
        ),
        UpstreamError::Client { .. } => (
            StatusCode::BAD_REQUEST,
            "The request did not come whole",
            ProxyError::HttpRequestError,
        ),
        UpstreamError::NoWayOut { sent: false, .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "standin has no way out to the app",
            ProxyError::ProxyInternalError,
        ),
        UpstreamError::NoWayOut { sent: true, .. } => (
            StatusCode::BAD_GATEWAY,
            "The way out to the app gave no answer of the app",
            ProxyError::ProxyInternalError,
        ),
        UpstreamError::Ourselves { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "standin cannot ask the app",
            ProxyError::ProxyInternalError,
        ),
    };
    let problem = Problem::new(status, title).proxy_status(ProxyStatus::new().error(proxy));
    match (error, certainty) {
        (UpstreamError::Client { .. }, _) => problem,
        (UpstreamError::BreakerOpen { retry_after }, certainty) => {
            problem.detail(said(certainty)).retry_after(*retry_after)
        }
        (UpstreamError::NoWayOut { retry_after: Some(after), .. }, certainty) => {
            problem.detail(said(certainty)).retry_after(SOON.max(*after))
        }
        (_, certainty) => problem.detail(said(certainty)).retry_after(SOON),
    }
}

/// Of this attempt and of all earlier ones of its key.
fn said(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::NotSent => NOT_APPLIED,
        Certainty::SentUnknown => UNKNOWN,
    }
}

const NOT_APPLIED: &str = "The request was not applied. It can be sent again.";
const UNKNOWN: &str =
    "It is not known whether the request was applied. Ask before sending it again.";

fn body_fault(fault: &BodyFault) -> Problem {
    match fault {
        BodyFault::TooLarge => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than allowed")
        }
        BodyFault::Idle => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "The request body paused for too long")
        }
        BodyFault::Slow => {
            Problem::new(StatusCode::REQUEST_TIMEOUT, "The request body comes too slowly")
        }
        BodyFault::Broken(_) => {
            Problem::new(StatusCode::BAD_REQUEST, "The request body is not well formed")
        }
    }
    .proxy_status(ProxyError::HttpRequestError)
}
