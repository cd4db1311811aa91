//! Keeps failed exchanges of routes that ask for it (`record = "errors"`): what was asked, and what came of it.
//!
//! An answer's body is copied aside while it streams; nothing waits for the copy, and nothing of it changes the answer.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{Answer, way_out};
use crate::{
    record::{Exchange, LARGEST_BODY, Records},
    router::{Matched, Route},
    store::Certainty,
    upstream::{AnswerBody, AnswerFault, Places, UpstreamError, request_body::RequestBody},
};

/// One request of a route that records, as it goes to the app.
pub(super) struct Recording {
    records: Records,
    route: Arc<Route>,
    request_id: String,
    method: Method,
    target: Uri,
    headers: HeaderMap,
    /// Only where it was read whole before it was sent.
    body: Option<Bytes>,
    began: Instant,
}

/// The body of an answer that is recorded when it ends, or is given up.
pub struct Recorded {
    body: AnswerBody,
    _places: Places,
    status: StatusCode,
    headers: HeaderMap,
    copy: Vec<u8>,
    whole: bool,
    recording: Recording,
}

impl Recording {
    /// None where nobody wants it.
    pub(super) fn of(
        records: &Records,
        matched: &Matched,
        request_id: &HeaderName,
        head: &Parts,
        body: &RequestBody,
    ) -> Option<Box<Self>> {
        let route = matched.route.as_ref().filter(|route| route.config.watch.record.is_some())?;
        Some(Self::made(records, route, request_id, head, body.whole()))
    }

    pub(super) fn made(
        records: &Records,
        route: &Arc<Route>,
        request_id: &HeaderName,
        head: &Parts,
        body: Option<Bytes>,
    ) -> Box<Self> {
        Box::new(Self {
            records: records.clone(),
            route: Arc::clone(route),
            request_id: way_out::request_id(head, request_id).to_owned(),
            method: head.method.clone(),
            target: head.uri.clone(),
            headers: head.headers.clone(),
            body,
            began: Instant::now(),
        })
    }

    /// It began so long ago.
    pub(super) fn that_took(mut self: Box<Self>, time: Duration) -> Box<Self> {
        self.began = self.began.checked_sub(time).unwrap_or(self.began);
        self
    }

    /// There was no answer. A client's own fault, and what was not even tried, are no failed exchanges.
    pub(super) fn no_answer(&self, error: &UpstreamError) {
        if !matches!(
            error,
            UpstreamError::Client { .. }
                | UpstreamError::BreakerOpen { .. }
                | UpstreamError::Full { .. }
        ) {
            self.keep(error.to_string(), error.certainty(), None);
        }
    }

    /// An answer that its client does not get: standin answers instead.
    pub(super) fn not_given<B>(&self, response: &Response<B>) {
        let cause = format!("the app answered {}, and standin instead", response.status());
        let answer = (response.status(), response.headers(), None);
        self.keep(cause, Certainty::SentUnknown, Some(answer));
    }

    /// The app's answer; if it is an error, it is recorded when its body ends.
    pub(super) fn answered(
        self: Box<Self>,
        response: Response<AnswerBody>,
        places: Places,
    ) -> Response<Answer> {
        if response.status() < StatusCode::INTERNAL_SERVER_ERROR {
            return response.map(|body| Answer::App(body, places));
        }
        let (status, headers) = (response.status(), response.headers().clone());
        response.map(|body| {
            let whole = body.is_end_stream();
            Answer::Recorded(Box::new(Recorded {
                body,
                _places: places,
                status,
                headers,
                copy: Vec::new(),
                whole,
                recording: *self,
            }))
        })
    }

    fn keep(
        &self,
        cause: String,
        certainty: Certainty,
        answer: Option<(StatusCode, &HeaderMap, Option<&[u8]>)>,
    ) {
        self.records.keep(&Exchange {
            route: &self.route.name,
            upstream: &self.route.upstream.name,
            request_id: &self.request_id,
            took: self.began.elapsed(),
            cause,
            certainty,
            method: &self.method,
            target: &self.target,
            headers: &self.headers,
            body: self.body.as_ref(),
            answer,
        });
    }
}

impl Body for Recorded {
    type Data = Bytes;
    type Error = AnswerFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerFault>>> {
        let given = Pin::new(&mut self.body).poll_frame(cx);
        match &given {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    // One byte more than is kept says that there was more.
                    let room = (LARGEST_BODY + 1).saturating_sub(self.copy.len());
                    let part = &data[..data.len().min(room)];
                    self.copy.extend_from_slice(part);
                }
                self.whole = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        given
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let body = self.whole.then_some(&self.copy[..]);
        let cause = format!("the app answered {}", self.status);
        let answer = (self.status, &self.headers, body);
        self.recording.keep(cause, Certainty::SentUnknown, Some(answer));
    }
}
