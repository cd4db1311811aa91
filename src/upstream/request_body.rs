//! The body of a request on its way to the app, and who is to blame when it does not come whole.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use tokio::time::Instant;

use super::{
    body_copy::{CopyReader, WholeBody},
    endpoint::Chosen,
};
pub use crate::client_body::BodyFault;

/// A request body as it comes from the client. Its errors are the client's fault and say so in words.
pub type ClientBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyFault>>>;

/// How far the reading of a body from its client has come; shared with those who must know afterwards.
#[derive(Debug, Default)]
pub struct Progress {
    whole: Cell<bool>,
    /// A connection to the app has taken the request.
    connected: Cell<bool>,
    sent_at: Cell<Option<Instant>>,
    frames: Cell<u64>,
    /// Asked for more, the client had none yet.
    client_slow: Cell<bool>,
    /// Which of several endpoints has it in hand, and since when.
    on: Cell<Option<(Chosen, Instant)>>,
    /// Its deadline has passed: nobody else is tried.
    over: Cell<bool>,
    fault: RefCell<Option<BodyFault>>,
    waits_for: Cell<WaitsFor>,
}

/// What a request is waiting for, as far as that is known where it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitsFor {
    #[default]
    Body,
    /// Another request of its key or sequence.
    Turn,
    App,
    Store,
}

/// What is sent to the app as the body.
pub enum RequestBody {
    Empty,
    /// Read before it is sent: one write carries head and body. Empty but for its trailers once its bytes were taken.
    Whole(WholeBody),
    /// Passes through, nothing kept.
    Streamed(ClientBody, Rc<Progress>),
    Copied(CopyReader),
}

/// A request on its way. It stays in its place and is taken when it is sent; after a try that failed it is there again if
/// it can be sent once more.
pub type Outgoing = Option<Request<RequestBody>>;

/// A body of known length up to this is read before it is sent on: fewer system calls for both sides.
const SMALL: u64 = 64 << 10;

impl Progress {
    /// All of the body was read from the client.
    pub fn is_whole(&self) -> bool {
        self.whole.get()
    }

    /// What the client did wrong.
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault.borrow().clone()
    }

    /// All of it was handed to a connection: the app has the word.
    pub fn is_sent(&self) -> bool {
        self.whole.get() && self.connected.get()
    }

    /// Frames read so far: tells whether a transfer moves.
    pub fn frames(&self) -> u64 {
        self.frames.get()
    }

    pub fn count_frame(&self) {
        self.frames.set(self.frames.get() + 1);
    }

    /// What the client's body gave when it was asked last.
    pub fn asked<T>(&self, given: &Poll<T>) {
        self.client_slow.set(given.is_pending());
    }

    /// The app has taken what there is, and waits for the client as we do.
    pub fn waits_for_client(&self) -> bool {
        self.client_slow.get()
    }

    pub fn waits_for(&self, what: WaitsFor) {
        self.waits_for.set(what);
    }

    /// In words.
    pub fn waited_for(&self) -> &'static str {
        match self.waits_for.get() {
            WaitsFor::Turn => "its turn among those of its key or sequence",
            WaitsFor::Store => "the store",
            WaitsFor::App if !self.connected.get() => "a connection",
            WaitsFor::App if self.is_whole() || !self.waits_for_client() => "the app's answer",
            WaitsFor::Body | WaitsFor::App => "the client's body",
        }
    }

    pub fn set_connected(&self) {
        self.connected.set(true);
    }

    pub(super) fn set_on(&self, chosen: Chosen, began: Instant) {
        self.on.set(Some((chosen, began)));
    }

    pub(super) fn on(&self) -> Option<(Chosen, Instant)> {
        self.on.get()
    }

    pub(super) fn set_sent_at(&self, at: Instant) {
        self.sent_at.set(Some(at));
    }

    /// When it was seen to be sent, where somebody wants to know.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.sent_at.get()
    }

    /// The same request goes to another app: what was seen of the exchange before says nothing of this one.
    pub fn begin_anew(&self) {
        self.connected.set(false);
        self.sent_at.set(None);
        self.on.set(None);
        self.over.set(false);
    }

    pub(super) fn set_over(&self) {
        self.over.set(true);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    pub fn set_whole(&self) {
        self.whole.set(true);
    }

    pub fn set_fault(&self, fault: &BodyFault) {
        self.fault.borrow_mut().get_or_insert_with(|| fault.clone());
    }
}

impl RequestBody {
    /// The body of a request that only passes through. A small one is read whole first.
    pub async fn pass_through<B>(mut body: B, progress: &Rc<Progress>) -> Result<Self, BodyFault>
    where
        B: Body<Data = Bytes, Error = BodyFault> + Unpin + 'static,
    {
        if body.is_end_stream() {
            progress.set_whole();
            return Ok(Self::Empty);
        }
        if body.size_hint().exact().is_none_or(|length| length > SMALL) {
            return Ok(Self::Streamed(Box::pin(body), Rc::clone(progress)));
        }
        let whole = read_small(&mut body).await?;
        progress.set_whole();
        Ok(Self::Whole(whole))
    }

    /// Its bytes, where it was read whole before it is sent.
    pub fn whole(&self) -> Option<Bytes> {
        match self {
            Self::Empty => Some(Bytes::new()),
            Self::Whole(whole) => Some(whole.bytes.clone()),
            Self::Streamed(..) | Self::Copied(_) => None,
        }
    }

    /// The same body from its start; none of one that only passes through.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(whole) => Some(Self::Whole(whole.clone())),
            Self::Streamed(..) => None,
            Self::Copied(reader) => reader.again().map(Self::Copied),
        }
    }
}

impl From<WholeBody> for RequestBody {
    fn from(whole: WholeBody) -> Self {
        match whole {
            WholeBody { bytes, trailers: None } if bytes.is_empty() => Self::Empty,
            whole => Self::Whole(whole),
        }
    }
}

/// Reads a body whose length is known to be small. One that comes in one piece is not copied.
async fn read_small<B>(body: &mut B) -> Result<WholeBody, BodyFault>
where
    B: Body<Data = Bytes, Error = BodyFault> + Unpin,
{
    let mut whole = WholeBody::default();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) if whole.bytes.is_empty() => whole.bytes = data,
            Ok(data) => more.extend_from_slice(&data),
            Err(frame) => whole.trailers = frame.into_trailers().ok(),
        }
        if body.is_end_stream() {
            break;
        }
    }
    if !more.is_empty() {
        let mut all = BytesMut::with_capacity(whole.bytes.len() + more.len());
        all.extend_from_slice(&whole.bytes);
        all.extend_from_slice(&more);
        whole.bytes = all.freeze();
    }
    Ok(whole)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(whole) if !whole.bytes.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut whole.bytes)))))
            }
            Self::Whole(whole) => Poll::Ready(whole.trailers.take().map(Frame::trailers).map(Ok)),
            Self::Streamed(body, progress) => {
                let given = body.as_mut().poll_frame(cx);
                progress.asked(&given);
                let frame = std::task::ready!(given);
                progress.count_frame();
                match &frame {
                    None => progress.set_whole(),
                    Some(Err(fault)) => progress.set_fault(fault),
                    Some(Ok(_)) if body.is_end_stream() => progress.set_whole(),
                    Some(Ok(_)) => {}
                }
                Poll::Ready(frame)
            }
            Self::Copied(reader) => Pin::new(reader).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(whole) => whole.bytes.is_empty() && whole.trailers.is_none(),
            Self::Streamed(body, _) => body.is_end_stream(),
            Self::Copied(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // Trailers need a body in chunks.
            Self::Whole(WholeBody { trailers: Some(_), .. }) => SizeHint::default(),
            Self::Whole(whole) => SizeHint::with_exact(whole.bytes.len() as u64),
            Self::Streamed(body, _) => body.size_hint(),
            Self::Copied(reader) => reader.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_waits_for_is_said_in_words() {
        let progress = Progress::default();
        assert_eq!(progress.waited_for(), "the client's body");
        for (what, words) in [
            (WaitsFor::Turn, "its turn among those of its key or sequence"),
            (WaitsFor::Store, "the store"),
            (WaitsFor::App, "a connection"),
        ] {
            progress.waits_for(what);
            assert_eq!(progress.waited_for(), words);
        }
        progress.set_connected();
        assert_eq!(progress.waited_for(), "the app's answer");
        // The app has taken what there is of the body.
        progress.asked(&Poll::<()>::Pending);
        assert_eq!(progress.waited_for(), "the client's body");
        progress.set_whole();
        assert_eq!(progress.waited_for(), "the app's answer");
    }
}
