//! What the toy shop does wrong, switched while it runs.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Response, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Body, answer};

/// What goes wrong now with orders and carts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    pub kind: FaultKind,
    /// `kind` happens to one request in so many; 0 and 1 mean to every one.
    pub every: u64,
    /// Wait before the request is applied.
    pub delay_before_ms: u64,
    /// Wait between applying and answering.
    pub delay_after_ms: u64,
    /// Bodies that contain this are declined with 422.
    pub decline: Option<String>,
}

/// One way to misbehave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    #[default]
    None,
    /// Not applied, connection cut.
    DropBefore,
    /// Applied, connection cut.
    DropAfter,
    /// Applied, answered 500.
    ErrorAfter,
    /// Not applied, 503.
    Unavailable,
    /// Not applied, 401.
    Unauthorized,
    /// Applied, half of the answer sent, connection cut.
    HalfAnswer,
    /// Not applied, never answered.
    Hang,
    /// Applied, never answered.
    HangAfter,
    /// Not applied, a friendly page with status 200.
    Maintenance,
}

/// What happens instead of applying.
pub(super) enum Early {
    Answer(Response<Body>),
    Cut,
    Hang,
}

impl FaultKind {
    pub(super) fn before_applying(self) -> Option<Early> {
        Some(match self {
            Self::DropBefore => Early::Cut,
            Self::Hang => Early::Hang,
            Self::Unavailable => {
                let why = json!({ "error": "unavailable" });
                Early::Answer(answer(StatusCode::SERVICE_UNAVAILABLE, &why))
            }
            Self::Unauthorized => {
                let why = json!({ "error": "who are you?" });
                Early::Answer(answer(StatusCode::UNAUTHORIZED, &why))
            }
            Self::Maintenance => Early::Answer(maintenance()),
            Self::None
            | Self::DropAfter
            | Self::ErrorAfter
            | Self::HalfAnswer
            | Self::HangAfter => return None,
        })
    }
}

impl Faults {
    pub(super) fn declines(&self, body: &[u8]) -> bool {
        self.decline
            .as_ref()
            .is_some_and(|word| memchr::memmem::find(body, word.as_bytes()).is_some())
    }
}

/// Where the faults are switched.
pub(super) struct FaultBoard {
    now: ArcSwap<Faults>,
    requests: AtomicU64,
}

impl FaultBoard {
    pub(super) fn new(faults: Faults) -> Self {
        Self { now: ArcSwap::from_pointee(faults), requests: AtomicU64::new(0) }
    }

    pub(super) fn now(&self) -> Arc<Faults> {
        self.now.load_full()
    }

    pub(super) fn hits_this_one(&self, faults: &Faults) -> bool {
        self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(faults.every.max(1))
    }

    /// `GET /faults` shows them, `PUT /faults` replaces them.
    pub(super) fn control(&self, method: &Method, body: &[u8]) -> Response<Body> {
        if method == Method::PUT {
            match serde_json::from_slice(body) {
                Ok(faults) => self.now.store(Arc::new(faults)),
                Err(error) => return refusal(&error.to_string()),
            }
        }
        match serde_json::to_value(&*self.now()) {
            Ok(now) => answer(StatusCode::OK, &now),
            Err(error) => refusal(&error.to_string()),
        }
    }
}

pub(super) fn refusal(why: &str) -> Response<Body> {
    answer(StatusCode::BAD_REQUEST, &json!({ "error": why }))
}

fn maintenance() -> Response<Body> {
    let page = Full::new(Bytes::from_static(b"<h1>Back soon</h1>"));
    let mut response = Response::new(page.map_err(|never| match never {}).boxed_unsync());
    let html = header::HeaderValue::from_static("text/html");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// A body that promises its whole length and breaks off in the middle.
pub(super) struct HalfAnswer {
    half: Option<Bytes>,
    promised: u64,
}

impl HalfAnswer {
    pub(super) async fn of(whole: Response<Body>) -> Response<Body> {
        let (head, body) = whole.into_parts();
        let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let half =
            Self { half: Some(bytes.slice(..bytes.len() / 2)), promised: bytes.len() as u64 };
        Response::from_parts(head, half.boxed_unsync())
    }
}

impl http_body::Body for HalfAnswer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(Some(match self.half.take() {
            Some(half) => Ok(Frame::data(half)),
            None => Err(io::Error::other("cut on purpose")),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}
