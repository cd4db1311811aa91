//! An origin that is not hyper: it keeps every byte it gets, reads requests in the plainest way there is, and answers with
//! exactly the bytes it is told.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::eventually;

pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Option<JoinSet<()>>,
}

#[derive(Default)]
struct Shared {
    /// Bytes by connection.
    wire: Mutex<Vec<Vec<u8>>>,
    complete: Mutex<Vec<Received>>,
    scripts: HashMap<String, Script>,
}

/// A request that came whole.
#[derive(Clone)]
pub struct Received {
    /// Request line and fields as they came.
    pub head: String,
    /// Without its framing.
    pub body: Vec<u8>,
    pub trailers: String,
}

/// What is answered to one path.
#[derive(Clone, Debug)]
pub struct Script {
    pub bytes: Vec<u8>,
    pub then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The next request may come on the same connection.
    Keep,
    Close,
    /// Gives back whatever comes.
    Echo,
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{:?}", format!("{}{body}{}", self.head, self.trailers))
    }
}

impl Origin {
    pub async fn start(scripts: impl IntoIterator<Item = (String, Script)>) -> Self {
        let shared = Shared { scripts: scripts.into_iter().collect(), ..Shared::default() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut origin = Self { address: any, shared: Arc::new(shared), tasks: None };
        origin.restart().await;
        origin
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes its listener and all connections.
    pub async fn stop(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    pub async fn restart(&mut self) {
        let address = self.address;
        let bind = async || TcpListener::bind(address).await;
        let listener = eventually(Duration::from_secs(10), bind).await;
        self.address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&self.shared)));
        self.tasks = Some(tasks);
    }

    /// Whether these bytes came, in a whole request or not.
    pub fn got(&self, bytes: &[u8]) -> bool {
        let wire = self.shared.wire.lock().unwrap();
        wire.iter().any(|all| memchr::memmem::find(all, bytes).is_some())
    }

    /// The whole requests whose head has `text`.
    pub fn complete(&self, text: &str) -> Vec<Received> {
        let complete = self.shared.complete.lock().unwrap();
        complete.iter().filter(|received| received.head.contains(text)).cloned().collect()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let number = {
            let mut wire = shared.wire.lock().unwrap();
            wire.push(Vec::new());
            wire.len() - 1
        };
        let connection =
            Connection { stream, number, buffer: Vec::new(), shared: Arc::clone(&shared) };
        connections.spawn(async move {
            let _ = connection.serve().await;
        });
        while connections.try_join_next().is_some() {}
    }
}

struct Connection {
    stream: TcpStream,
    number: usize,
    buffer: Vec<u8>,
    shared: Arc<Shared>,
}

impl Connection {
    /// None when the other side is gone or says what is not HTTP.
    async fn serve(mut self) -> Option<()> {
        loop {
            let received = self.request().await?;
            let mut words = received.head.split(' ');
            let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
            self.shared.complete.lock().unwrap().push(received);
            let script = self.shared.scripts.get(&target).cloned();
            let script = script.unwrap_or_else(|| usual(&method, &target));
            self.stream.write_all(&script.bytes).await.ok()?;
            match script.then {
                Then::Keep => {}
                Then::Close => return Some(()),
                Then::Echo => {
                    let (mut read, mut write) = self.stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok()?;
                    return Some(());
                }
            }
        }
    }

    async fn request(&mut self) -> Option<Received> {
        let head = String::from_utf8_lossy(&self.until(b"\r\n\r\n").await?).into_owned();
        let field = |name: &str| {
            let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
            let mut fields = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
            fields.next().map(|(_, value)| value.trim().to_ascii_lowercase())
        };
        let mut received =
            Received { head: head.clone(), body: Vec::new(), trailers: String::new() };
        if field("transfer-encoding").is_some_and(|codings| codings.ends_with("chunked")) {
            loop {
                let line = self.until(b"\r\n").await?;
                let size = String::from_utf8_lossy(&line).trim().to_owned();
                let size = usize::from_str_radix(size.split(';').next()?, 16).ok()?;
                if size == 0 {
                    break;
                }
                received.body.extend(self.exactly(size).await?);
                self.until(b"\r\n").await?;
            }
            loop {
                let line = self.until(b"\r\n").await?;
                if line == b"\r\n" {
                    break;
                }
                received.trailers.push_str(&String::from_utf8_lossy(&line));
            }
        } else if let Some(length) = field("content-length") {
            received.body = self.exactly(length.parse().ok()?).await?;
        }
        Some(received)
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(place) = memchr::memmem::find(&self.buffer, end) {
                return Some(self.buffer.drain(..place + end.len()).collect());
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> Option<()> {
        let mut piece = [0; 16 * 1024];
        let read = self.stream.read(&mut piece).await.ok().filter(|&read| read > 0)?;
        self.buffer.extend_from_slice(&piece[..read]);
        self.shared.wire.lock().unwrap()[self.number].extend_from_slice(&piece[..read]);
        Some(())
    }
}

/// An answer that says which request it belongs to.
fn usual(method: &str, target: &str) -> Script {
    let body = format!("origin saw {method} {target}");
    let length = body.len();
    let body = if method == "HEAD" { String::new() } else { body };
    let bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes();
    Script { bytes, then: Then::Keep }
}
