//! Floods of HTTP/2 frames that cost their sender nothing. Whatever they come to, others are served meanwhile and the
//! memory of standin stays as it was.

use std::{net::SocketAddr, ops::Range, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, tcp::OwnedReadHalf},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use super::{
    canary,
    http2::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE,
        RST_STREAM, SETTINGS, frame,
    },
    pair,
    wire::Wire,
};
use crate::support::Standin;

/// How the flooded connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// standin had enough.
    GoAway(u32),
    Closed,
    /// All was read, and a ping after it is answered.
    Alive,
    /// standin reads no more of it.
    Stuck,
}

/// Streams are opened and reset at once: each costs its sender two frames.
#[tokio::test]
async fn rapid_resets_are_stopped_early() {
    let (mut standin, origin) = pair().await;
    for method in ["GET", "POST"] {
        let target = format!("/orders/rapid-{method}");
        let ending = flood(
            &mut standin,
            frames(0..10_000, 500, |number| {
                [open(method, &target, number), reset(number)].concat()
            }),
        )
        .await;
        assert_eq!(ending, Ending::GoAway(ENHANCE_YOUR_CALM), "{method}");
        let reached = origin.complete(&target).len();
        assert!(reached < 1000, "{reached} of 10,000 were forwarded");
    }
}

/// The same with patience: each stream has been taken before it is reset, which no limit of HTTP/2 forbids.
#[tokio::test]
async fn resets_of_streams_that_were_taken_leave_nothing_behind() {
    let (mut standin, origin) = pair().await;
    for method in ["GET", "POST"] {
        let target = format!("/orders/patient-{method}");
        let rounds = (0..200).flat_map(|round: u32| {
            let streams = round * 50..(round + 1) * 50;
            let opened = streams.clone().flat_map(|number| open(method, &target, number)).collect();
            [opened, streams.flat_map(reset).collect()]
        });
        let ending = Flood { patient: true, ..Flood::default() }.run(&mut standin, rounds).await;
        assert_eq!(ending, Ending::Alive, "{method}");
        assert!(!origin.complete(&target).is_empty(), "{method}: no stream was taken");
    }
}

/// A head that never ends.
#[tokio::test]
async fn continuations_are_not_collected_for_ever() {
    let (mut standin, _origin) = pair().await;
    let target = "/orders/endless-head";
    let field = http2::fields(&[("x", "y")], "");
    for payload in [&field[..], b""] {
        let more = frame(CONTINUATION, 0, 1, payload);
        let ending = flood(
            &mut standin,
            frames(0..10_000, 500, |number| match number {
                0 => head("GET", target, END_STREAM, 0),
                _ => more.clone(),
            }),
        )
        .await;
        assert!(matches!(ending, Ending::GoAway(_) | Ending::Closed), "{ending:?}");
    }
}

#[tokio::test]
async fn empty_data_is_not_read_for_ever() {
    let (mut standin, origin) = pair().await;
    let target = "/orders/empty-data";
    let ending = flood(
        &mut standin,
        frames(0..100_000, 2000, |number| match number {
            0 => begin("POST", target, 0),
            _ => frame(DATA, 0, 1, b""),
        }),
    )
    .await;
    assert!(matches!(ending, Ending::GoAway(_) | Ending::Closed), "{ending:?}");
    assert!(origin.complete(target).is_empty());
}

/// Each wants an answer, and nobody reads the answers.
#[tokio::test]
async fn settings_and_pings_pile_up_no_answers() {
    let (mut standin, _origin) = pair().await;
    for (kind, payload) in [(SETTINGS, &[0, 4, 0, 1, 0, 0][..]), (PING, b"12345678")] {
        let asked = frame(kind, 0, 0, payload);
        let chunks = |number| frames(0..number, 2000, |_| asked.clone());
        assert_eq!(flood(&mut standin, chunks(200_000)).await, Ending::Alive, "{kind}");
        // When the kernel takes no more answers, standin reads no more.
        let deaf = Flood { deaf: true, ..Flood::default() };
        let deaf = deaf.run(&mut standin, chunks(1_500_000)).await;
        assert!(matches!(deaf, Ending::Stuck | Ending::Closed), "{kind}: {deaf:?}");
    }
}

async fn flood(standin: &mut Standin, chunks: impl Iterator<Item = Vec<u8>>) -> Ending {
    Flood::default().run(standin, chunks).await
}

/// How its sender behaves.
#[derive(Clone, Copy, Default)]
struct Flood {
    /// Does not read what it is told.
    deaf: bool,
    /// Sends the next chunk when the last one has been read.
    patient: bool,
}

impl Flood {
    /// One connection sends all of it; meanwhile and after it others are served, and memory does not grow.
    async fn run(self, standin: &mut Standin, chunks: impl Iterator<Item = Vec<u8>>) -> Ending {
        let address = standin.address();
        for _ in 0..20 {
            canary(&mut Wire::to(address).await, "before").await.unwrap();
        }
        let process = standin.process();
        let before = process.memory();
        process.forget_the_peak();
        let (over, is_over) = watch::channel(false);
        let mut beside = JoinSet::new();
        beside.spawn(others(address, is_over));
        let ending = self.send(address, chunks).await;
        over.send_replace(true);
        let served = beside.join_next().await.unwrap().unwrap().unwrap();
        let grown = process.peak_memory().saturating_sub(before);
        println!("{ending:?}: {served} others served, {grown} bytes of memory");
        assert!(grown < MOST_GROWTH, "{ending:?}: memory grew by {grown} bytes");
        ending
    }

    async fn send(self, address: SocketAddr, chunks: impl Iterator<Item = Vec<u8>>) -> Ending {
        let patience = Duration::from_secs(if self.deaf { 3 } else { 20 });
        let socket = TcpSocket::new_v4().unwrap();
        if self.deaf {
            socket.set_recv_buffer_size(4096).unwrap();
        }
        let (reader, mut writer) = socket.connect(address).await.unwrap().into_split();
        writer.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat()).await.unwrap();
        let (told, mut said) = watch::channel(Said::default());
        let mut listening = JoinSet::new();
        // Kept, but not read: a closed half would be an end.
        let unread = if self.deaf {
            Some((reader, told))
        } else {
            listening.spawn(listen(reader, told));
            None
        };
        for (number, mut chunk) in (1..).zip(chunks) {
            if self.patient {
                chunk.extend(frame(PING, 0, 0, PACE));
            }
            match timeout(patience, writer.write_all(&chunk)).await {
                Ok(Ok(())) if said.borrow().ending.is_none() => {}
                Ok(_) => break,
                Err(_) => return Ending::Stuck,
            }
            if self.patient {
                let read = |said: &Said| said.paces == number || said.ending.is_some();
                timeout(patience, said.wait_for(read)).await.expect("standin reads on").unwrap();
            } else {
                tokio::task::yield_now().await;
            }
        }
        let _ = writer.write_all(&frame(PING, 0, 0, LAST)).await;
        if let Some((reader, told)) = unread {
            listening.spawn(listen(reader, told));
        }
        match timeout(patience, said.wait_for(|said| said.ending.is_some())).await {
            Ok(said) => said.unwrap().ending.unwrap(),
            Err(_) => Ending::Stuck,
        }
    }
}

/// Somebody on a connection of his own, and somebody new each time.
async fn others(address: SocketAddr, is_over: watch::Receiver<bool>) -> Result<u32, String> {
    let mut kept = Wire::to(address).await;
    let mut served = 0;
    loop {
        canary(&mut kept, "beside-a-flood").await?;
        canary(&mut Wire::to(address).await, "beside-a-flood").await?;
        served += 2;
        if *is_over.borrow() {
            return Ok(served);
        }
    }
}

/// What standin said so far.
#[derive(Clone, Copy, Default)]
struct Said {
    ending: Option<Ending>,
    paces: u32,
}

async fn listen(mut reader: OwnedReadHalf, told: watch::Sender<Said>) {
    let ends = |ending| told.send_modify(|said| _ = said.ending.get_or_insert(ending));
    while let Some((kind, flags, _, payload)) = http2::next_frame(&mut reader).await {
        match (kind, &payload[..]) {
            (GOAWAY, payload) => {
                ends(Ending::GoAway(u32::from_be_bytes(payload[4..8].try_into().unwrap())));
            }
            (PING, LAST) if flags == ACK => ends(Ending::Alive),
            (PING, PACE) if flags == ACK => told.send_modify(|said| said.paces += 1),
            _ => {}
        }
    }
    ends(Ending::Closed);
}

/// Many frames in one write.
fn frames(
    numbers: Range<u32>,
    at_once: usize,
    frame: impl Fn(u32) -> Vec<u8>,
) -> impl Iterator<Item = Vec<u8>> {
    let mut numbers = numbers.peekable();
    std::iter::from_fn(move || {
        numbers.peek()?;
        Some(numbers.by_ref().take(at_once).flat_map(&frame).collect())
    })
}

/// A whole request on the stream of that number.
fn open(method: &str, target: &str, number: u32) -> Vec<u8> {
    head(method, target, END_HEADERS | END_STREAM, number)
}

/// A request whose body is to come.
fn begin(method: &str, target: &str, number: u32) -> Vec<u8> {
    head(method, target, END_HEADERS, number)
}

fn head(method: &str, target: &str, flags: u8, number: u32) -> Vec<u8> {
    let fields = [(":method", method), HEAD[0], HEAD[1], (":path", "{}")];
    frame(HEADERS, flags, 1 + 2 * number, &http2::fields(&fields, target))
}

fn reset(number: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, 1 + 2 * number, &8_u32.to_be_bytes())
}

const HEAD: [(&str, &str); 2] = [(":scheme", "http"), (":authority", "a")];
/// RFC 9113 7.
const ENHANCE_YOUR_CALM: u32 = 11;
const PACE: &[u8] = b"go ahead";
const LAST: &[u8] = b"the last";
const MOST_GROWTH: u64 = 20 << 20;
