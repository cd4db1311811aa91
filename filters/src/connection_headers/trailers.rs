//! A body that lets no trailer set what belongs into a head.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;

use crate::peer::{Client, FromClient};

use super::{names::is_forbidden_trailer, remove_all};

pin_project! {
    /// A body without the trailer fields that no trailer may set (RFC 9110 6.5.1).
    #[derive(Debug)]
    pub struct Trailers<B> {
        #[pin]
        pub(super) inner: B,
        // None: a body of our own, which has no trailers.
        pub(super) request_id: Option<Arc<HeaderName>>,
    }
}

impl<B> Trailers<B> {
    pub fn get_ref(&self) -> &B {
        &self.inner
    }
}

impl<B: FromClient> FromClient for Trailers<B> {
    fn client(&self) -> Option<&Client> {
        self.inner.client()
    }

    fn note_new_id(&mut self) {
        self.inner.note_new_id();
    }

    fn id_is_new(&self) -> bool {
        self.inner.id_is_new()
    }
}

impl<B: Body> Body for Trailers<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let frame = match ready!(this.inner.poll_frame(cx)) {
            Some(Ok(frame)) if frame.is_trailers() => frame,
            other => return Poll::Ready(other),
        };
        let Ok(mut trailers) = frame.into_trailers() else { return Poll::Ready(None) };
        if let Some(request_id) = this.request_id {
            clean_trailers(&mut trailers, request_id);
        }
        if trailers.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B: From<Full<Bytes>>> From<Full<Bytes>> for Trailers<B> {
    fn from(body: Full<Bytes>) -> Self {
        Self { inner: B::from(body), request_id: None }
    }
}

fn clean_trailers(trailers: &mut HeaderMap, request_id: &HeaderName) {
    remove_all(trailers, |name| name == request_id.as_str() || is_forbidden_trailer(name));
}
