//! HTTP/2 with the app, on the h2 crate: many exchanges on one connection, which a task of its own drives. What an exchange
//! left behind is told as exactly as with HTTP/1.1: what was refused by name (`REFUSED_STREAM`, or beyond the last stream
//! of a `GOAWAY`), and what was handed over to a connection that wrote nothing since, the app has not seen.

mod driver;
mod head;
mod link;
mod sending;
mod wire;

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, client};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts,
    uri::Scheme,
};
use http_body::{Frame, SizeHint};

pub(super) use self::link::{Link, Made};
use self::{
    driver::Pings,
    link::{Common, MOST_STREAMS, Slot},
    sending::{BrokenOff, Sending},
    wire::Wire,
};
use super::{Stream, fault::Fault, request_body::RequestBody};
use crate::config::ConnectionsConfig;

/// Why there is no connection that speaks HTTP/2. Nothing of a request has left.
pub(super) enum NoLink {
    /// The app's word against our certificate.
    Refused(String),
    Broken(String),
}

/// Begins HTTP/2 on a stream, and waits until the app has said how it speaks. The caller bounds the time.
pub(super) async fn open(
    stream: Stream,
    config: &ConnectionsConfig,
    mut made: Made,
) -> Result<Rc<Link>, NoLink> {
    let (wire, traffic) = Wire::new(stream);
    let broken = |error: h2::Error| NoLink::Broken(format!("no HTTP/2: {error}"));
    let handshake = client::Builder::new()
        // None before its settings have come: what they do not allow is never begun.
        .initial_max_send_streams(0)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * MOST_STREAMS as u32)
        .max_send_buffer_size(MOST_UNSENT)
        .max_header_list_size(LARGEST_HEAD)
        .enable_push(false)
        .handshake::<_, Bytes>(wire);
    let (send, connection) = handshake.await.map_err(broken)?;
    let common = Common::new(traffic, made.place.take(), Rc::clone(&made.places));
    let after = (!config.ping.is_zero()).then_some(config.ping);
    let pings = Pings { after, within: config.ping_timeout };
    driver::start(connection, Rc::clone(&common), pings);
    let link = Link::new(send, Rc::clone(&common), made);
    if common.is_settled().await {
        return Ok(link);
    }
    Err(match common.traffic().take_refusal() {
        Some(refusal) => NoLink::Refused(refusal),
        None => NoLink::Broken("it does not speak HTTP/2".to_owned()),
    })
}

/// One exchange: a stream of a connection. Driven by whoever waits for it; dropped early, it is reset.
pub(super) struct Exchange {
    response: Option<client::ResponseFuture>,
    sending: Sending,
    receiving: Option<RecvStream>,
    /// What was handed over, as long as it may have to be given back.
    asked: Option<Asked>,
    /// What the connection had written when the head was handed to it; none: it was not.
    handed_at: Option<u64>,
    /// The app says that it has not looked at it.
    refused: bool,
    failed: Option<Fault>,
    interim: u32,
    length: SizeHint,
    is_over: bool,
    scheme: Scheme,
    authority: Rc<str>,
    slot: Slot,
}

struct Asked {
    parts: Parts,
    /// The body once more, if it can be read again.
    again: Option<RequestBody>,
}

impl Exchange {
    pub(super) fn on(link: &Rc<Link>, over_tls: bool, authority: &str) -> Self {
        Self {
            response: None,
            sending: Sending::default(),
            receiving: None,
            asked: None,
            handed_at: None,
            refused: false,
            failed: None,
            interim: 0,
            length: SizeHint::default(),
            is_over: false,
            scheme: if over_tls { Scheme::HTTPS } else { Scheme::HTTP },
            authority: authority.into(),
            slot: link.take_slot(),
        }
    }

    /// Hands the head over to the connection.
    pub(super) fn begin(&mut self, request: Request<RequestBody>) {
        let (parts, body) = request.into_parts();
        let is_whole = http_body::Body::is_end_stream(&body);
        let head = head::translate(&parts, &body, self.scheme.clone(), &self.authority);
        let head = match head {
            Ok(head) => head,
            Err(_) => {
                self.failed = Some(Fault::Invalid("the request cannot be said in HTTP/2"));
                return;
            }
        };
        let again = body.again();
        let length = head.headers().get(header::CONTENT_LENGTH).and_then(number);
        let link = self.slot.link();
        let written = link.traffic().written();
        let sent = link.send().send_request(head, is_whole);
        match sent {
            Ok((response, to)) => {
                self.handed_at = Some(written);
                self.response = Some(response);
                self.asked = Some(Asked { parts, again });
                if !is_whole {
                    self.sending = Sending::new(to, body, length);
                }
            }
            Err(error) => {
                // It takes no more: nothing was handed over.
                link.leave();
                self.failed = Some(Fault::Http2(error));
                self.asked = Some(Asked { parts, again: Some(body) });
            }
        }
    }

    /// Whether anything of the request can have reached the app.
    pub(super) fn may_have_left(&self) -> bool {
        let wrote = |handed_at| self.slot.link().traffic().written() != handed_at;
        !self.refused && self.handed_at.is_some_and(wrote)
    }

    /// The request again, if its body can be read once more and nothing of an answer came.
    pub(super) fn take_again(&mut self) -> Option<Request<RequestBody>> {
        let asked = self.asked.take()?;
        let again = asked
            .again
            .and_then(|body| if self.handed_at.is_some() { body.again() } else { Some(body) });
        let body = again.or_else(|| std::mem::take(&mut self.sending).into_unread())?;
        Some(Request::from_parts(asked.parts, body))
    }

    /// Sends what can be sent; ready with the head of the final answer.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Fault>> {
        if let Some(fault) = self.failed.take() {
            return Poll::Ready(Err(fault));
        }
        self.send_on(cx)?;
        let Some(response) = &mut self.response else {
            return Poll::Ready(Err(Fault::Closed));
        };
        while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Poll::Ready(Err(Fault::Invalid("more interim answers than anybody needs")));
            }
        }
        match ready!(std::pin::Pin::new(response).poll(cx)) {
            Ok(answer) => Poll::Ready(Ok(self.answered(answer))),
            Err(error) => {
                // Who has said something has looked.
                self.refused = self.interim == 0 && was_not_looked_at(&error);
                Poll::Ready(Err(Fault::Http2(error)))
            }
        }
    }

    fn answered(&mut self, answer: Response<RecvStream>) -> Response<()> {
        let (mut parts, receiving) = answer.into_parts();
        parts.version = Version::HTTP_11;
        self.is_over = receiving.is_end_stream();
        let is_head = self.asked.take().is_some_and(|asked| asked.parts.method == Method::HEAD);
        self.length = if self.is_over || is_head {
            SizeHint::with_exact(0)
        } else {
            length(parts.status, &parts.headers)
        };
        (self.response, self.receiving) = (None, Some(receiving));
        Response::from_parts(parts, ())
    }

    /// The next piece of the answer's body; sends on what is left of the request.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if !self.sending.is_done() {
            self.send_on(cx)?;
        }
        let Some(receiving) = self.receiving.as_mut().filter(|_| !self.is_over) else {
            return Poll::Ready(None);
        };
        while let Some(data) = ready!(receiving.poll_data(cx)) {
            let data = match data {
                Ok(data) => data,
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            };
            // There is room for more once this piece goes on to the client.
            receiving.flow_control().release_capacity(data.len()).ok();
            self.is_over = receiving.is_end_stream();
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
        let trailers = ready!(receiving.poll_trailers(cx));
        self.is_over = true;
        Poll::Ready(match trailers {
            Ok(Some(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(None) => None,
            Err(error) => Some(Err(Fault::Http2(error))),
        })
    }

    pub(super) fn is_answer_over(&self) -> bool {
        self.is_over
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.length
    }

    fn send_on(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        match self.sending.poll(cx) {
            Poll::Ready(Err(BrokenOff)) => {
                // The stream is reset: the app never sees an end of what has none.
                (self.sending, self.response, self.receiving) = (Sending::default(), None, None);
                self.is_over = true;
                Err(Fault::Client)
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn broken(&mut self, error: h2::Error) -> Fault {
        self.is_over = true;
        Fault::Http2(error)
    }
}

/// RFC 9113 8.7: the app says by name that it has not looked at the request. A stream ends by the app's `GOAWAY` only if
/// it is beyond the last one of that.
fn was_not_looked_at(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
}

fn length(status: StatusCode, headers: &HeaderMap) -> SizeHint {
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return SizeHint::with_exact(0);
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(number);
    length.map_or_else(SizeHint::default, SizeHint::with_exact)
}

fn number(value: &HeaderValue) -> Option<u64> {
    value.to_str().ok()?.parse().ok()
}

/// What the app may send of one answer before its client has taken anything.
const WINDOW: u32 = 128 << 10;
/// What we hold of one request's body before the app has taken anything.
const MOST_UNSENT: usize = 64 << 10;
/// Largest head of an answer.
const LARGEST_HEAD: u32 = 256 << 10;
/// Interim answers (1xx) before the final one.
const MOST_INTERIM: u32 = 100;
