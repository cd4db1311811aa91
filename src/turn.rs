//! What a worker's sockets have to say is gathered and leaves together, when the worker has nothing else to do. Each send
//! wakes whoever reads at the other end, unless it is awake: of sends in a row only the first one costs that.
//!
//! Nothing is held back for longer: a turn ends before its thread waits, and after so many sends or looks at sockets. What
//! is large leaves at once, and so does everything on a thread that has no turns.
//!
//! A worker reads the clock once for all that it does with what has come ([`now`]).

mod gathered;
mod late;

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use tokio::time::Instant;

pub use self::{gathered::Gathered, late::Shows};

/// What waits for the end of the turn.
trait Leaves {
    fn leave(&self);
}

struct Turn {
    /// This thread says when its turns end.
    has_end: Cell<bool>,
    waiting: RefCell<Vec<Arc<dyn Leaves>>>,
    /// Looks at sockets since the turn before.
    looks: Cell<u32>,
    /// Rooms that what is gathered is put into: an idle connection has none.
    rooms: RefCell<Vec<Vec<u8>>>,
    /// What the clock said, as long as that is near enough.
    now: Cell<Option<Instant>>,
    /// Connections since one had its first bytes there when somebody looked for them.
    silent: Cell<u32>,
}

thread_local! {
    // Made without a look whether it was made already: every read and write asks it.
    static TURN: Turn = const {
        Turn {
            has_end: Cell::new(false),
            waiting: RefCell::new(Vec::new()),
            looks: Cell::new(0),
            rooms: RefCell::new(Vec::new()),
            now: Cell::new(None),
            silent: Cell::new(0),
        }
    };
}

/// So many sends make a turn of their own.
const MOST_SENDS: usize = 64;
/// A thread that never waits ends a turn after so many looks at sockets.
const MOST_LOOKS: u32 = 256;

/// After so many that had not spoken when they were accepted only one of so many more is asked.
const SILENT_IN_A_ROW: u32 = 4;
const LOOK_NEVERTHELESS: u32 = 16;

/// From now on this thread calls [`end`] whenever it is about to wait.
pub fn begin() {
    TURN.with(|turn| turn.has_end.set(true));
}

/// What the clock said when it was asked first since the last bytes came, or since the thread waited last. So it is behind
/// by what a worker has computed since then and no more: microseconds for a request that passes through. Never for what
/// may compute for long. A thread without turns asks the clock each time.
pub fn now() -> Instant {
    TURN.with(|turn| {
        if let Some(now) = turn.now.get() {
            return now;
        }
        let now = Instant::now();
        if turn.has_end.get() {
            turn.now.set(Some(now));
        }
        now
    })
}

/// Bytes came, or another time began for other reasons: the clock is asked anew.
pub fn time_passes() {
    TURN.with(|turn| turn.now.set(None));
}

/// All that was gathered leaves.
pub fn end() {
    time_passes();
    // The list goes back: its room is needed again in the next turn.
    let mut leaving = TURN.with(|turn| turn.waiting.take());
    if leaving.is_empty() {
        return;
    }
    leaving.drain(..).for_each(|one| one.leave());
    TURN.with(|turn| {
        turn.looks.set(0);
        turn.waiting.replace(leaving);
    });
}

/// Somebody has looked at a socket: a sign that the turn goes on.
fn look() {
    let is_long = TURN.with(|turn| {
        let looks = turn.looks.get() + 1;
        turn.looks.set(looks);
        looks >= MOST_LOOKS
    });
    if is_long {
        TURN.with(|turn| turn.looks.set(0));
        end();
    }
}

/// Whether it is likely enough that a connection has spoken when it is accepted. A worker with little to do is faster than
/// its clients: it would ask in vain each time.
fn may_have_spoken() -> bool {
    let silent = TURN.with(|turn| turn.silent.replace(turn.silent.get().wrapping_add(1)));
    silent < SILENT_IN_A_ROW || silent.is_multiple_of(LOOK_NEVERTHELESS)
}

fn has_spoken() {
    TURN.with(|turn| turn.silent.set(0));
}

fn take_room() -> Vec<u8> {
    TURN.with(|turn| turn.rooms.borrow_mut().pop()).unwrap_or_default()
}

fn give_room(mut room: Vec<u8>) {
    room.clear();
    TURN.with(|turn| {
        let mut rooms = turn.rooms.borrow_mut();
        if rooms.len() < MOST_SENDS {
            rooms.push(room);
        }
    });
}

fn has_end() -> bool {
    TURN.with(|turn| turn.has_end.get())
}

fn wait_for_end(one: Arc<dyn Leaves>) {
    let is_full = TURN.with(|turn| {
        let mut waiting = turn.waiting.borrow_mut();
        waiting.push(one);
        waiting.len() >= MOST_SENDS
    });
    if is_full {
        end();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        io::{IoSlice, Read, Write},
        net,
        task::{Context, Poll, Waker},
    };

    use tokio::{
        io::{AsyncReadExt, ReadBuf},
        net::{TcpListener, TcpStream},
    };

    use super::{gathered::SMALL, *};

    /// Both ends of a connection; what is said on the first one is gathered.
    async fn connected() -> (Gathered, net::TcpStream) {
        begin();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let far = listener.accept().await.unwrap().0.into_std().unwrap();
        (near.into(), far)
    }

    /// The same, but the runtime has not heard of it.
    fn just_connected() -> (Gathered, net::TcpStream) {
        begin();
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let far = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        (near.into(), far)
    }

    async fn say(near: &Gathered, bytes: &[u8]) {
        let written = poll_fn(|cx| near.poll_write(cx, &[IoSlice::new(bytes)])).await.unwrap();
        assert_eq!(written, bytes.len());
    }

    /// What is there without a wait.
    fn heard(far: &mut net::TcpStream) -> String {
        let mut room = [0; 1024];
        far.set_nonblocking(true).unwrap();
        match far.read(&mut room) {
            Ok(read) => String::from_utf8_lossy(&room[..read]).into_owned(),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    #[tokio::test]
    async fn what_is_said_leaves_when_the_turn_ends() {
        let (one, mut far_one) = connected().await;
        let (other, mut far_other) = connected().await;
        say(&one, b"first ").await;
        say(&other, b"other").await;
        say(&one, b"second").await;
        assert_eq!((one.unsent(), other.unsent()), (12, 5));
        assert_eq!(heard(&mut far_one), "WouldBlock");
        end();
        assert_eq!((one.unsent(), other.unsent()), (0, 0));
        assert_eq!((&*heard(&mut far_one), &*heard(&mut far_other)), ("first second", "other"));
    }

    #[tokio::test]
    async fn a_turn_of_a_thread_that_never_waits_ends_too() {
        let (near, mut far) = connected().await;
        say(&near, b"at last").await;
        let cx = &mut Context::from_waker(Waker::noop());
        let looks = (1..).find(|_| {
            let mut room = [0];
            assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
            near.unsent() == 0
        });
        assert!(looks.is_some_and(|looks| looks <= MOST_LOOKS));
        assert_eq!(heard(&mut far), "at last");
    }

    #[tokio::test]
    async fn many_sends_do_not_wait_for_the_end() {
        let mut all = Vec::new();
        for _ in 0..MOST_SENDS {
            all.push(connected().await);
        }
        for (near, _) in &all {
            say(near, b"one of many").await;
        }
        assert!(all.iter().all(|(near, _)| near.unsent() == 0));
        assert!(all.iter_mut().all(|(_, far)| heard(far) == "one of many"));
    }

    #[tokio::test]
    async fn what_is_discarded_does_not_leave() {
        let (near, mut far) = connected().await;
        say(&near, b"never").await;
        near.discard();
        end();
        assert_eq!(heard(&mut far), "WouldBlock");
        // It goes on from there.
        say(&near, b"this").await;
        end();
        assert_eq!(heard(&mut far), "this");
    }

    #[tokio::test]
    async fn what_is_dropped_is_said_nevertheless_unless_it_is_discarded() {
        let (near, mut far) = connected().await;
        say(&near, b"last words").await;
        drop(near);
        end();
        assert_eq!(heard(&mut far), "last words");
        assert_eq!(heard(&mut far), "");
    }

    /// Says so much that the kernel takes no more.
    async fn fill(near: &Gathered) -> usize {
        let cx = &mut Context::from_waker(Waker::noop());
        let large = vec![b'x'; 1 << 20];
        let mut said = 0;
        while let Poll::Ready(written) = near.poll_write(cx, &[IoSlice::new(&large)]) {
            said += written.unwrap();
        }
        said
    }

    #[tokio::test]
    async fn what_the_kernel_does_not_take_is_waited_for_and_comes_in_order() {
        for (near, far) in [connected().await, just_connected()] {
            let said = fill(&near).await;
            say(&near, b"small").await;
            end();
            assert!(near.is_behind());
            assert_eq!(near.unsent(), 5);
            // A flush waits now, and so does the next piece.
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(near.poll_flush(cx).is_pending());
            assert!(near.poll_write(cx, &[IoSlice::new(b"next")]).is_pending());
            let all = all_of(far, async {
                poll_fn(|cx| near.poll_flush(cx)).await.unwrap();
                assert_eq!(near.unsent(), 0);
                say(&near, b"next").await;
                poll_fn(|cx| near.poll_shutdown(cx)).await.unwrap();
            });
            let all = all.await;
            assert_eq!(all.len(), said + 9);
            assert!(all.ends_with(b"xsmallnext"));
        }
    }

    /// What is read to the end while something is said.
    async fn all_of(far: net::TcpStream, saying: impl Future<Output = ()>) -> Vec<u8> {
        far.set_nonblocking(true).unwrap();
        let mut far = TcpStream::from_std(far).unwrap();
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(far.read_to_end(&mut all), saying);
        assert_eq!(read.unwrap(), all.len());
        all
    }

    /// The end of a turn cannot wait: whoever said it is woken and waits.
    #[tokio::test]
    async fn of_one_that_nobody_has_waited_for_an_end_of_a_turn_may_leave_a_rest() {
        let (near, far) = just_connected();
        let small = [b'x'; SMALL];
        let mut said = 0;
        let woken = Arc::new(Told::default());
        let waker = Waker::from(Arc::clone(&woken));
        while !near.is_behind() {
            let cx = &mut Context::from_waker(&waker);
            assert!(near.poll_write(cx, &[IoSlice::new(&small)]).is_ready());
            said += SMALL;
            end();
        }
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
        let shut = async { poll_fn(|cx| near.poll_shutdown(cx)).await.unwrap() };
        assert_eq!(all_of(far, shut).await.len(), said);
    }

    /// No runtime is there: it would panic.
    #[cfg(target_os = "linux")]
    #[test]
    fn one_that_has_asked_and_is_answered_at_once_is_never_waited_for() {
        let (near, mut far) = just_connected();
        far.write_all(b"request").unwrap();
        let cx = &mut Context::from_waker(Waker::noop());
        let mut room = [0; 16];
        let mut buf = ReadBuf::new(&mut room);
        assert!(matches!(near.poll_read(cx, &mut buf), Poll::Ready(Ok(()))));
        assert_eq!(buf.filled(), b"request");
        assert!(near.heard_of().is_none());
        assert!(matches!(near.poll_write(cx, &[IoSlice::new(b"answer")]), Poll::Ready(Ok(6))));
        assert_eq!(heard(&mut far), "WouldBlock");
        assert!(matches!(near.poll_shutdown(cx), Poll::Ready(Ok(()))));
        assert_eq!((&*heard(&mut far), &*heard(&mut far)), ("answer", ""));
        let large = [b'x'; SMALL + 1];
        let (near, mut far) = just_connected();
        assert!(
            matches!(near.poll_write(cx, &[IoSlice::new(&large)]), Poll::Ready(Ok(sent)) if sent == large.len())
        );
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(all, large);
    }

    /// Whoever never stops to send is read once beside the turns of the others.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_second_read_waits_for_a_turn() {
        let (near, mut far) = just_connected();
        far.write_all(b"one after another").unwrap();
        let mut room = [0; 3];
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready());
        assert_eq!(&room, b"one");
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        poll_fn(|cx| near.poll_read(cx, &mut ReadBuf::new(&mut room))).await.unwrap();
        assert_eq!(&room, b" af");
    }

    /// Where clients are silent at first, few are asked in vain; where they have spoken again, nobody waits.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn those_that_are_silent_at_first_are_waited_for_without_a_look() {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut room = [0; 3];
        let mut is_asked = || {
            let (near, mut far) = just_connected();
            far.write_all(b"yes").unwrap();
            near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready()
        };
        for _ in 0..SILENT_IN_A_ROW {
            assert!(is_asked());
        }
        let cx = &mut Context::from_waker(Waker::noop());
        for _ in 0..SILENT_IN_A_ROW {
            let (near, _far) = just_connected();
            assert!(near.poll_read(cx, &mut ReadBuf::new(&mut [0; 3])).is_pending());
        }
        let asked = (SILENT_IN_A_ROW..).find(|_| is_asked());
        assert_eq!(asked, Some(LOOK_NEVERTHELESS));
        assert!(is_asked() && is_asked());
    }

    #[tokio::test]
    async fn one_that_has_not_asked_is_waited_for() {
        let (near, mut far) = just_connected();
        let mut room = [0; 8];
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        // The runtime has not heard of it before its next turn: this one ends as all do.
        say(&near, b"well?").await;
        end();
        assert_eq!((&*heard(&mut far), near.is_behind()), ("well?", false));
        far.write_all(b"at last!").unwrap();
        poll_fn(|cx| near.poll_read(cx, &mut ReadBuf::new(&mut room))).await.unwrap();
        assert_eq!(&room, b"at last!");
        drop(far);
        let mut buf = ReadBuf::new(&mut room);
        poll_fn(|cx| near.poll_read(cx, &mut buf)).await.unwrap();
        assert!(buf.filled().is_empty());
    }

    /// It waits for the first bytes, and then for the kernel to take what it says: it hears of both.
    #[tokio::test]
    async fn a_write_that_waits_does_not_make_a_read_deaf() {
        let (near, mut far) = just_connected();
        let woken = Arc::new(Told::default());
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let mut room = [0; 3];
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        let large = vec![b'x'; 1 << 20];
        while near.poll_write(cx, &[IoSlice::new(&large)]).is_ready() {}
        assert!(woken.0.swap(false, std::sync::atomic::Ordering::SeqCst));
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        far.write_all(b"yes").unwrap();
        while !woken.0.load(std::sync::atomic::Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_ready());
        assert_eq!(&room, b"yes");
    }

    /// The error comes at the end of the turn; whoever said it hears of it, and that nothing has left.
    #[tokio::test]
    async fn what_can_not_leave_is_known_not_to_have_left() {
        let (near, far) = connected().await;
        let (sink, _kept) = connected().await;
        socket2::SockRef::from(&far).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(far);
        near.stream().unwrap().ready(tokio::io::Interest::ERROR).await.unwrap();
        let woken = Arc::new(Told::default());
        let waker = Waker::from(Arc::clone(&woken));
        let told = near.poll_write(&mut Context::from_waker(&waker), &[IoSlice::new(b"lost")]);
        assert!(matches!(told, Poll::Ready(Ok(4))), "{told:?}");
        say(&sink, b"goes").await;
        end();
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!((near.unsent(), sink.unsent()), (4, 0));
        for _ in 0..2 {
            assert!(poll_fn(|cx| near.poll_flush(cx)).await.is_err());
            assert!(poll_fn(|cx| near.poll_write(cx, &[IoSlice::new(b"x")])).await.is_err());
        }
    }

    #[derive(Default)]
    struct Told(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_asked_once_until_something_comes_or_the_turn_ends() {
        const MS: std::time::Duration = std::time::Duration::from_millis(1);
        let start = Instant::now();
        tokio::time::advance(MS).await;
        assert_eq!(now() - start, MS, "without turns it is always asked");
        tokio::time::advance(MS).await;
        assert_eq!(now() - start, 2 * MS);
        let (near, mut far) = connected().await;
        assert_eq!(now() - start, 2 * MS);
        tokio::time::advance(MS).await;
        assert_eq!(now() - start, 2 * MS, "nothing has come");
        end();
        assert_eq!(now() - start, 3 * MS, "another turn, though nothing had to leave");
        tokio::time::advance(MS).await;
        let mut room = [0; 8];
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(near.poll_read(cx, &mut ReadBuf::new(&mut room)).is_pending());
        assert_eq!(now() - start, 3 * MS, "a look that finds nothing");
        far.write_all(b"news").unwrap();
        poll_fn(|cx| near.poll_read(cx, &mut ReadBuf::new(&mut room))).await.unwrap();
        assert!(now() - start >= 4 * MS, "something has come");
    }

    /// A thread without turns has nobody who would send.
    #[tokio::test]
    async fn without_turns_all_leaves_at_once() {
        let (near, mut far) = connected().await;
        TURN.with(|turn| turn.has_end.set(false));
        say(&near, b"now").await;
        assert_eq!(near.unsent(), 0);
        assert_eq!(heard(&mut far), "now");
    }
}
