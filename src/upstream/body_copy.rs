//! Copies a request body aside while it streams to the app: up to a limit and within a global budget of bytes.
//!
//! Past either the body streams on and is not kept: such a request cannot be stood in for.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::request_body::{BodyFault, ClientBody, Progress};

/// Bytes that all copies together may take.
#[derive(Clone, Debug)]
pub struct Budget(Arc<AtomicU64>);

/// Shared handle of one copy.
#[derive(Clone)]
pub struct Copied(Rc<RefCell<BodyCopy>>);

/// One reading of a copied body, from its start.
pub struct CopyReader {
    copy: Copied,
    next: usize,
    trailers_given: bool,
}

/// A body read to its end.
#[derive(Clone, Debug, Default)]
pub struct WholeBody {
    pub bytes: Bytes,
    pub trailers: Option<HeaderMap>,
}

struct BodyCopy {
    /// What is still to come; `None` once it ended or broke.
    client: Option<ClientBody>,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// Bytes in `kept`.
    length: u64,
    /// What of the budget is taken.
    counted: u64,
    /// Where small pieces go.
    room: BytesMut,
    limit: u64,
    budget: Budget,
    /// More than may be kept: frames only pass through `kept`.
    over: bool,
    progress: Rc<Progress>,
}

/// Bytes of a piece from which on what comes with it does not matter.
const SMALL: usize = 256;
/// What a piece takes beside its bytes: its place in a list that doubles.
const PIECE: u64 = 2 * size_of::<Bytes>() as u64;
/// Where small pieces go, at most so many bytes at a time.
const ROOM: usize = 4 << 10;

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes))
            .is_ok()
    }

    fn give(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Copied {
    pub fn new(client: ClientBody, limit: u64, budget: Budget, progress: Rc<Progress>) -> Self {
        let mut copy = BodyCopy {
            client: Some(client),
            kept: Vec::new(),
            trailers: None,
            length: 0,
            counted: 0,
            room: BytesMut::new(),
            limit,
            budget,
            over: false,
            progress,
        };
        if copy.client.as_ref().is_some_and(|client| client.is_end_stream()) {
            copy.end();
        }
        Self(Rc::new(RefCell::new(copy)))
    }

    /// The length that the client announced, or of what there is.
    pub fn announced(&self) -> Option<u64> {
        let copy = self.0.borrow();
        copy.client.as_ref().map_or(Some(copy.length), |client| client.size_hint().exact())
    }

    pub fn reader(&self) -> CopyReader {
        CopyReader { copy: self.clone(), next: 0, trailers_given: false }
    }

    /// Reads what is left from the client, whoever read before. `None`: larger than may be kept.
    pub async fn read_whole(&self) -> Result<Option<WholeBody>, BodyFault> {
        loop {
            if let Some(outcome) = self.0.borrow().outcome() {
                return outcome;
            }
            poll_fn(|cx| self.0.borrow_mut().poll_more(cx)).await;
        }
    }
}

impl BodyCopy {
    /// What the copy came to, once that is known.
    fn outcome(&self) -> Option<Result<Option<WholeBody>, BodyFault>> {
        match self.progress.fault() {
            Some(fault) => Some(Err(fault)),
            None if self.over => Some(Ok(None)),
            None if self.progress.is_whole() => Some(Ok(Some(self.whole()))),
            None => None,
        }
    }

    /// Takes one more frame from the client, if there is one.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(client) = self.client.as_mut() else { return Poll::Ready(()) };
        let given = client.as_mut().poll_frame(cx);
        self.progress.asked(&given);
        match ready!(given) {
            None => self.end(),
            Some(Err(fault)) => {
                self.progress.set_fault(&fault);
                self.client = None;
            }
            Some(Ok(frame)) => {
                self.progress.count_frame();
                let ended = client.is_end_stream();
                match frame.into_data() {
                    Ok(data) => self.keep(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                }
                if ended {
                    self.end();
                }
            }
        }
        Poll::Ready(())
    }

    fn keep(&mut self, mut data: Bytes) {
        // Most bodies come in one piece.
        let is_small = data.len() < SMALL && !self.kept.is_empty();
        let bytes = data.len() as u64;
        let counted = if is_small { bytes + PIECE } else { bytes };
        if !self.over && self.length + bytes <= self.limit && self.budget.take(counted) {
            self.length += bytes;
            self.counted += counted;
            if is_small {
                data = self.packed(&data);
            }
        } else if !self.over {
            self.over = true;
            self.length = 0;
            self.budget.give(std::mem::take(&mut self.counted));
        }
        self.kept.push(data);
    }

    /// A copy behind the others: as it came, a small piece holds on to all that came with it.
    fn packed(&mut self, data: &[u8]) -> Bytes {
        if self.room.capacity() < data.len() {
            let as_much_again = usize::try_from(self.length).unwrap_or(ROOM);
            self.room = BytesMut::with_capacity(as_much_again.clamp(SMALL, ROOM));
        }
        self.room.extend_from_slice(data);
        self.room.split().freeze()
    }

    fn end(&mut self) {
        self.client = None;
        self.progress.set_whole();
    }

    fn whole(&self) -> WholeBody {
        let bytes = match self.kept.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut all = BytesMut::with_capacity(usize::try_from(self.length).unwrap_or(0));
                many.iter().for_each(|part| all.extend_from_slice(part));
                all.freeze()
            }
        };
        WholeBody { bytes, trailers: self.trailers.clone() }
    }
}

impl Drop for BodyCopy {
    fn drop(&mut self) {
        self.budget.give(self.counted);
    }
}

impl CopyReader {
    /// Another reading from the start, while all of it is kept.
    pub(super) fn again(&self) -> Option<Self> {
        let over = self.copy.0.borrow().over;
        (!over).then(|| self.copy.reader())
    }

    /// The next frame that is already here. Past the limit the one reader takes each frame with it.
    fn here(&mut self) -> Option<Bytes> {
        let copy = &mut *self.copy.0.borrow_mut();
        let part = copy.kept.get_mut(self.next)?;
        let data = if copy.over { std::mem::take(part) } else { part.clone() };
        self.next += 1;
        if copy.over && self.next == copy.kept.len() {
            copy.kept.clear();
            self.next = 0;
        }
        Some(data)
    }
}

impl Body for CopyReader {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        loop {
            if let Some(data) = self.here() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            let this = &mut *self;
            let mut copy = this.copy.0.borrow_mut();
            if let Some(fault) = copy.progress.fault() {
                return Poll::Ready(Some(Err(fault)));
            }
            if copy.progress.is_whole() {
                let trailers = copy.trailers.clone().filter(|_| !this.trailers_given);
                this.trailers_given = true;
                return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
            }
            ready!(copy.poll_more(cx));
        }
    }

    fn is_end_stream(&self) -> bool {
        let copy = self.copy.0.borrow();
        let given = self.trailers_given || copy.trailers.is_none();
        copy.progress.is_whole() && self.next >= copy.kept.len() && given
    }

    fn size_hint(&self) -> SizeHint {
        let copy = self.copy.0.borrow();
        if copy.trailers.is_some() {
            return SizeHint::new(); // with a length announced they could not follow
        }
        let here: u64 = copy.kept.iter().skip(self.next).map(|part| part.len() as u64).sum();
        match copy.client.as_ref().map(|client| client.size_hint().exact()) {
            None => SizeHint::with_exact(here),
            Some(Some(coming)) => SizeHint::with_exact(here + coming),
            Some(None) => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn client(parts: &[&'static str]) -> ClientBody {
        let frames: Vec<Result<_, Infallible>> =
            parts.iter().map(|part| Ok(Frame::data(Bytes::from(*part)))).collect();
        Box::pin(StreamBody::new(stream::iter(frames)).map_err(|never| match never {}))
    }

    #[tokio::test]
    async fn small_pieces_count_for_what_they_take_and_hold_on_to_nothing() {
        let came_in: Vec<Bytes> = (0..1000).map(|_| Bytes::from(vec![b'x'; 265])).collect();
        let frames: Vec<Result<_, Infallible>> =
            came_in.iter().map(|all| Ok(Frame::data(all.slice(9..10)))).collect();
        let body = StreamBody::new(stream::iter(frames)).map_err(|never| match never {});
        let counted = 1000 + 999 * PIECE;
        let budget = Budget::new(counted);
        let copied = Copied::new(Box::pin(body), 1000, budget.clone(), Rc::default());
        assert_eq!(copied.read_whole().await.unwrap().unwrap().bytes, "x".repeat(1000));
        assert_eq!(copied.reader().collect().await.unwrap().to_bytes(), "x".repeat(1000));
        assert!(!budget.take(1));
        let held = came_in.iter().filter(|all| !all.is_unique()).count();
        assert_eq!(held, 1, "the first one alone may be all there is");
        drop(copied);
        assert!(budget.take(counted));
    }

    #[tokio::test]
    async fn small_pieces_that_take_too_much_are_no_copy() {
        let parts = ["x"; 100];
        let budget = Budget::new(1000);
        let copied = Copied::new(client(&parts), 1000, budget.clone(), Rc::default());
        assert_eq!(copied.reader().collect().await.unwrap().to_bytes(), parts.concat());
        assert!(copied.read_whole().await.unwrap().is_none());
        assert!(budget.take(1000));
    }

    #[tokio::test]
    async fn what_one_reader_took_half_way_the_copy_still_has_whole() {
        let budget = Budget::new(1000);
        let copied = Copied::new(client(&["ab", "cd", "ef"]), 100, budget, Rc::default());
        let mut first = copied.reader();
        let frame = first.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "ab");
        drop(first);
        assert_eq!(copied.read_whole().await.unwrap().unwrap().bytes, "abcdef");
        assert_eq!(copied.reader().collect().await.unwrap().to_bytes(), "abcdef");
    }

    #[tokio::test]
    async fn with_trailers_no_length_is_announced() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        let frames: Vec<Result<_, Infallible>> =
            vec![Ok(Frame::data(Bytes::from("ab"))), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(stream::iter(frames)).map_err(|never| match never {});
        let copied = Copied::new(Box::pin(body), 100, Budget::new(100), Rc::default());
        assert!(copied.read_whole().await.unwrap().is_some());
        assert_eq!(copied.reader().size_hint().exact(), None);
        assert!(copied.reader().collect().await.unwrap().trailers().is_some());
    }

    #[tokio::test]
    async fn past_the_limit_it_streams_on_and_gives_the_budget_back() {
        let budget = Budget::new(100);
        let copied = Copied::new(client(&["abc", "def", "ghi"]), 5, budget.clone(), Rc::default());
        let reader = copied.reader();
        assert_eq!(reader.collect().await.unwrap().to_bytes(), "abcdefghi");
        assert!(copied.read_whole().await.unwrap().is_none());
        drop(copied);
        assert!(budget.take(100));
    }

    #[tokio::test]
    async fn a_budget_that_is_used_up_means_no_copy() {
        let copied = Copied::new(client(&["abc"]), 100, Budget::new(2), Rc::default());
        assert!(copied.read_whole().await.unwrap().is_none());
        assert_eq!(copied.reader().collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test]
    async fn a_broken_body_is_the_clients_fault_for_every_reader() {
        let frames =
            vec![Ok(Frame::data(Bytes::from("ab"))), Err(BodyFault::Broken("reset".into()))];
        let copied = Copied::new(
            Box::pin(StreamBody::new(stream::iter(frames))),
            100,
            Budget::new(100),
            Rc::default(),
        );
        assert!(copied.reader().collect().await.is_err());
        assert!(copied.read_whole().await.is_err());
    }
}
