//! Whether a client of HTTP/1 is still there to read its answer. Tells what the connection has shown; does not decide
//! what that means for anybody's request.
//!
//! A reset is plain. A FIN is not: whoever half-closes has said all and listens, whoever closes has left, and both look
//! the same until an answer is written. The kernel of one that has left answers it with a reset.

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::turn::Gathered;

/// One connection, seen from all who need it. Cheap to clone, and asks the kernel nothing while requests are served.
#[derive(Clone)]
pub struct Presence(Arc<Inner>);

struct Inner {
    stream: Gathered,
    /// A read or a write has met the reset; the kernel tells an error only once.
    reset: AtomicBool,
    notes: Mutex<Vec<Note>>,
}

/// What is to be done if the client turns out to have left. Dropped undone if it has not.
type Note = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Presence {
    pub(super) fn new(stream: impl Into<Gathered>) -> Self {
        let stream = stream.into();
        Self(Arc::new(Inner { stream, reset: AtomicBool::new(false), notes: Mutex::default() }))
    }

    /// The client has reset the connection: no answer reaches it any more. May be late by one turn of the runtime.
    pub fn is_reset(&self) -> bool {
        let Inner { stream, reset, .. } = &*self.0;
        // Of a socket that nobody has waited for, only the kernel has heard.
        let shows = || match stream.heard_of() {
            Some(stream) => may_show(stream, Interest::ERROR),
            None => stream.asked().error,
        };
        reset.load(Ordering::Relaxed) || shows()
    }

    /// The client says no more; perhaps it listens. May be late by one turn of the runtime.
    pub fn has_said_all(&self) -> bool {
        let Some(stream) = self.0.stream.heard_of() else { return self.0.stream.asked().end };
        // No wait: what the runtime has heard of the socket so far.
        let heard = || stream.ready(Interest::READABLE).now_or_never();
        may_show(stream, Interest::READABLE)
            && heard().is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }

    /// Leaves word before an answer is written to a client that has said all. False if there is too much of it already.
    pub fn if_it_has_left(&self, note: Note) -> bool {
        let mut notes = self.notes();
        let room = notes.len() < NOTES;
        if room {
            notes.push(note);
        }
        room
    }

    /// To be called when all answers are written and the connection is shut down. Where word was left it waits, not for
    /// long, until the client has acknowledged the answers or refused them, and does then what was asked for.
    pub(super) async fn settle(&self) {
        let notes = std::mem::take(&mut *self.notes());
        if notes.is_empty() || !self.refuses().await {
            return;
        }
        for note in notes {
            note.await;
        }
    }

    async fn refuses(&self) -> bool {
        // Where that fails nothing can be said, and the client counts as one that has listened.
        let Ok(stream) = self.0.stream.stream() else { return false };
        let deadline = Instant::now() + REFUSAL;
        loop {
            // All acknowledged, or all over: in this order, for the error is there before the end is.
            let over = stream.peer_addr().is_err();
            if self.is_reset() || matches!(stream.take_error(), Ok(Some(_)) | Err(_)) {
                return true;
            }
            if over || Instant::now() >= deadline {
                return false;
            }
            timeout(LOOK, stream.ready(Interest::ERROR)).await.ok();
        }
    }

    fn notes(&self) -> MutexGuard<'_, Vec<Note>> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stream as its one reader and writer uses it.
impl Presence {
    pub(super) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.stream.poll_read(cx, buf).map(|read| self.noted(read))
    }

    /// Ready as soon as the pieces are taken over: they leave at the end of the worker's turn.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.stream.poll_write(cx, pieces).map(|written| self.noted(written))
    }

    /// Waits only where the client did not take what was to leave.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.stream.poll_flush(cx).map(|flushed| self.noted(flushed))
    }

    /// The client's kernel has not taken all that was said.
    pub(super) fn is_behind(&self) -> bool {
        self.0.stream.unsent() > 0 || self.0.stream.is_behind()
    }

    /// Says all: the other direction stays open.
    pub(super) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.stream.poll_shutdown(cx).map(|shut| self.noted(shut))
    }

    fn noted<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &done
            && matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        {
            self.0.reset.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("reset", &self.0.reset).finish_non_exhaustive()
    }
}

/// Whether the runtime has heard anything of that kind. No system call: nothing is tried.
fn may_show(stream: &TcpStream, interest: Interest) -> bool {
    stream.try_io(interest, || Ok(())).is_ok()
}

/// Requests of one connection that word can be left of: all of a pipeline that anybody sends.
const NOTES: usize = 16;
/// How long a reset may take to come back.
const REFUSAL: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn connected() -> (Presence, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Presence::new(listener.accept().await.unwrap().0), client)
    }

    /// One that the runtime has not heard of.
    async fn just_connected() -> (Presence, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().unwrap().0;
        stream.set_nonblocking(true).unwrap();
        (Presence::new(stream), client)
    }

    async fn read(presence: &Presence) -> Vec<u8> {
        let (mut room, mut all) = ([0; 16], Vec::new());
        loop {
            let mut buf = ReadBuf::new(&mut room);
            poll_fn(|cx| presence.poll_read(cx, &mut buf)).await.unwrap();
            if buf.filled().is_empty() {
                return all;
            }
            all.extend_from_slice(buf.filled());
        }
    }

    /// The runtime hears of it at its next turn.
    async fn has_said_all(presence: &Presence) {
        while !presence.has_said_all() {
            tokio::task::yield_now().await;
        }
    }

    async fn write(presence: &Presence, bytes: &[u8]) {
        let written = poll_fn(|cx| presence.poll_write(cx, &[IoSlice::new(bytes)])).await;
        assert_eq!(written.unwrap(), bytes.len());
    }

    /// Leaves word, answers, shuts down; whether what was asked for is done then.
    async fn is_missed(presence: &Presence) -> bool {
        let done = Arc::new(AtomicBool::new(false));
        let note = Arc::clone(&done);
        assert!(
            presence.if_it_has_left(Box::pin(async move { note.store(true, Ordering::SeqCst) }))
        );
        write(presence, b"answer").await;
        poll_fn(|cx| presence.poll_shutdown(cx)).await.ok();
        presence.settle().await;
        done.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn one_that_has_closed_misses_its_answer() {
        for (presence, client) in [connected().await, just_connected().await] {
            assert!(!presence.has_said_all());
            drop(client);
            assert!(read(&presence).await.is_empty());
            has_said_all(&presence).await;
            assert!(!presence.is_reset());
            assert!(is_missed(&presence).await);
        }
    }

    #[tokio::test]
    async fn one_that_listens_has_its_answer() {
        for (presence, mut client) in [connected().await, just_connected().await] {
            client.write_all(b"a request of more than one buffer").await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(read(&presence).await, b"a request of more than one buffer");
            has_said_all(&presence).await;
            // Acknowledged by its kernel: nobody waits until it reads.
            let started = Instant::now();
            assert!(!is_missed(&presence).await);
            assert!(started.elapsed() < REFUSAL);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "answer");
        }
    }

    #[tokio::test]
    async fn a_reset_is_seen_without_reading() {
        let (presence, client) = connected().await;
        assert!(!presence.is_reset());
        reset(client);
        presence.0.stream.stream().unwrap().ready(Interest::ERROR).await.unwrap();
        assert!(presence.is_reset());
    }

    fn reset(client: TcpStream) {
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
    }

    /// What a client did before it was accepted is known with its request: no turn has to pass.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn of_one_that_nobody_has_waited_for_all_is_known_at_once() {
        let (closed, mut client) = just_connected().await;
        client.write_all(b"request").await.unwrap();
        assert!(!closed.has_said_all() && !closed.is_reset());
        drop(client);
        let (broken, mut client) = just_connected().await;
        client.write_all(b"request").await.unwrap();
        reset(client);
        let mut room = [0; 16];
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        for (presence, is_reset) in [(&closed, false), (&broken, true)] {
            let mut buf = ReadBuf::new(&mut room);
            assert!(presence.poll_read(cx, &mut buf).is_ready());
            assert_eq!(buf.filled(), b"request");
            // Nor when somebody waits since a moment.
            for _ in 0..2 {
                assert!(presence.has_said_all());
                assert_eq!(presence.is_reset(), is_reset);
                assert!(presence.poll_read(cx, &mut buf).is_pending());
            }
        }
        assert!(is_missed(&closed).await);
    }

    #[tokio::test]
    async fn the_reset_that_a_write_has_met_is_remembered() {
        for (presence, client) in [connected().await, just_connected().await] {
            drop(client);
            write(&presence, b"first").await;
            let second = poll_fn(|cx| presence.poll_write(cx, &[IoSlice::new(b"2")])).await;
            assert!(second.is_err());
            assert!(presence.0.reset.load(Ordering::Relaxed));
        }
    }

    #[tokio::test]
    async fn word_can_be_left_only_so_often() {
        let (presence, _client) = connected().await;
        let note = || Box::pin(async {});
        for _ in 0..NOTES {
            assert!(presence.if_it_has_left(note()));
        }
        assert!(!presence.if_it_has_left(note()));
    }
}
