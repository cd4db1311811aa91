//! An app that speaks HTTP/2 frame by frame, for what no server library does on purpose: it answers requests without a
//! body, and does with each that has one what the test says.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};

/// See the module.
pub struct Frames {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// A request with a body, when its head has come; or, with `whole`, its end.
#[derive(Clone, Copy, Debug)]
pub struct Posted {
    /// Which one, over all connections, from 0.
    pub number: usize,
    pub connection: usize,
    pub stream: u32,
    pub whole: bool,
}

/// What is done then.
#[derive(Clone, Copy, Debug)]
pub enum Do {
    /// 200 without a body.
    Answer,
    /// An interim answer (103).
    Hint,
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// The last stream, and a code.
    GoAway(u32, u32),
    /// The connection ends.
    Close,
    /// From now on nothing is read or answered, and the connection stays.
    FallSilent,
}

pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const NO_ERROR: u32 = 0;
pub const INTERNAL_ERROR: u32 = 2;

type Script = dyn Fn(Posted) -> Vec<Do> + Send + Sync;

struct Shared {
    script: Box<Script>,
    /// Frames of settings that it begins with.
    settings: Vec<u8>,
    connections: AtomicUsize,
    posted: AtomicUsize,
    pings: AtomicUsize,
    /// Windows are opened as bodies come.
    takes_bodies: AtomicBool,
    answers_pings: AtomicBool,
    resets: Mutex<Vec<u32>>,
    body_bytes: AtomicUsize,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

impl Frames {
    pub fn start(script: impl Fn(Posted) -> Vec<Do> + Send + Sync + 'static) -> Self {
        Self::allowing(None, script)
    }

    /// Allows so many streams at once.
    pub fn allowing(
        streams: Option<u32>,
        script: impl Fn(Posted) -> Vec<Do> + Send + Sync + 'static,
    ) -> Self {
        let setting = |value: u32| [&[0, 3][..], &value.to_be_bytes()].concat();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            settings: frame(SETTINGS, 0, 0, &streams.map(setting).unwrap_or_default()),
            connections: AtomicUsize::new(0),
            posted: AtomicUsize::new(0),
            pings: AtomicUsize::new(0),
            takes_bodies: AtomicBool::new(true),
            answers_pings: AtomicBool::new(true),
            resets: Mutex::default(),
            body_bytes: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests with a body so far.
    pub fn posted(&self) -> usize {
        self.shared.posted.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn pings(&self) -> usize {
        self.shared.pings.load(Ordering::SeqCst)
    }

    pub fn answer_pings(&self, answer: bool) {
        self.shared.answers_pings.store(answer, Ordering::SeqCst);
    }

    /// Whether it makes room for more of a body once some has come.
    pub fn take_bodies(&self, take: bool) {
        self.shared.takes_bodies.store(take, Ordering::SeqCst);
    }

    pub fn body_bytes(&self) -> usize {
        self.shared.body_bytes.load(Ordering::SeqCst)
    }

    /// The codes of the streams that were reset.
    pub fn resets(&self) -> Vec<u32> {
        self.shared.resets.lock().unwrap().clone()
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                let shared = Arc::clone(&shared);
                connections.spawn(async move { speak(stream, number, &shared).await });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// None when the connection is over.
async fn speak(mut stream: TcpStream, connection: usize, shared: &Shared) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    stream.write_all(&shared.settings).await.ok()?;
    let mut numbers = std::collections::BTreeMap::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.ok()?;
        let ended = flags & END_STREAM != 0;
        let todo = match kind {
            SETTINGS if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.ok()?;
                continue;
            }
            PING if flags & ACK == 0 => {
                shared.pings.fetch_add(1, Ordering::SeqCst);
                if shared.answers_pings.load(Ordering::SeqCst) {
                    stream.write_all(&frame(PING, ACK, 0, &payload)).await.ok()?;
                }
                continue;
            }
            RST_STREAM => {
                let code = u32::from_be_bytes(payload[..4].try_into().unwrap());
                shared.resets.lock().unwrap().push(code);
                continue;
            }
            HEADERS if ended && !numbers.contains_key(&id) => vec![Do::Answer],
            HEADERS if !ended => {
                let number = shared.posted.fetch_add(1, Ordering::SeqCst);
                numbers.insert(id, number);
                (shared.script)(Posted { number, connection, stream: id, whole: false })
            }
            DATA | HEADERS => {
                shared.body_bytes.fetch_add(length, Ordering::SeqCst);
                if shared.takes_bodies.load(Ordering::SeqCst) && length > 0 {
                    let by = u32::try_from(length).unwrap().to_be_bytes();
                    for of in [0, id] {
                        stream.write_all(&frame(WINDOW_UPDATE, 0, of, &by)).await.ok()?;
                    }
                }
                let Some(&number) = numbers.get(&id).filter(|_| ended) else { continue };
                (shared.script)(Posted { number, connection, stream: id, whole: true })
            }
            _ => continue,
        };
        for one in todo {
            match one {
                // `:status: 200` is in every table.
                Do::Answer => {
                    let answer = frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]);
                    stream.write_all(&answer).await.ok()?;
                }
                Do::Hint => {
                    // `:status` by its number in the table, and a text of three characters.
                    let hint = frame(HEADERS, END_HEADERS, id, b"\x08\x03103");
                    stream.write_all(&hint).await.ok()?;
                }
                Do::Reset(code) => {
                    let reset = frame(RST_STREAM, 0, id, &code.to_be_bytes());
                    stream.write_all(&reset).await.ok()?;
                }
                Do::GoAway(last, code) => {
                    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
                    stream.write_all(&frame(GOAWAY, 0, 0, &payload)).await.ok()?;
                }
                Do::Close => return None,
                Do::FallSilent => std::future::pending::<()>().await,
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}
