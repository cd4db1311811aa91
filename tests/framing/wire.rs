//! A client of bytes that reads answers strictly.

use std::{fmt, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer that came whole.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: String,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The other side closed; what had come until then.
    Closed(String),
    Silent(String),
    /// Not HTTP.
    Nonsense(String),
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a field; names in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .next()
    }

    pub fn closes(&self) -> bool {
        let is_old = self.head.starts_with("HTTP/1.0");
        is_old || self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", format!("{}{}{}", self.head, self.text(), self.trailers))
    }
}

impl Wire {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// As much as the other side takes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes with a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    /// The next final answer.
    pub async fn reply(&mut self, to_head: bool) -> Result<Reply, Gone> {
        match timeout(PATIENCE, self.read_reply(to_head)).await {
            Ok(reply) => reply,
            Err(_) => Err(Gone::Silent(self.rest())),
        }
    }

    /// Whether the other side closes, without another byte.
    pub async fn is_closed(&mut self) -> Result<(), String> {
        let mut byte = [0; 256];
        match timeout(PATIENCE, self.stream.read(&mut byte)).await {
            _ if !self.buffer.is_empty() => Err(format!("another answer: {}", self.rest())),
            Ok(Ok(0) | Err(_)) => Ok(()),
            Ok(Ok(read)) => Err(format!("more bytes: {}", String::from_utf8_lossy(&byte[..read]))),
            Err(_) => Err("it stays open".to_owned()),
        }
    }

    async fn read_reply(&mut self, to_head: bool) -> Result<Reply, Gone> {
        loop {
            let head = self.until(b"\r\n\r\n").await?;
            let head = String::from_utf8_lossy(&head).into_owned();
            let status = head.get(9..12).and_then(|status| status.parse().ok());
            let Some(status) = status.filter(|_| head.starts_with("HTTP/1.")) else {
                return Err(Gone::Nonsense(head));
            };
            let mut reply = Reply { status, head, body: Vec::new(), trailers: String::new() };
            match status {
                101 => return Ok(reply),
                100..=199 => continue,
                204 | 304 => return Ok(reply),
                _ if to_head => return Ok(reply),
                _ => {}
            }
            match (reply.field("transfer-encoding"), reply.field("content-length")) {
                (Some(_), Some(_)) => return Err(Gone::Nonsense(reply.head)),
                (Some("chunked"), None) => self.chunks(&mut reply).await?,
                (None, Some(length)) => {
                    let Ok(length) = length.parse() else { return Err(Gone::Nonsense(reply.head)) };
                    reply.body = self.exactly(length).await?;
                }
                (None, None) => {
                    while self.more().await.is_ok() {}
                    reply.body = std::mem::take(&mut self.buffer);
                }
                (Some(_), None) => return Err(Gone::Nonsense(reply.head)),
            }
            return Ok(reply);
        }
    }

    async fn chunks(&mut self, reply: &mut Reply) -> Result<(), Gone> {
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let Ok(size) = usize::from_str_radix(&line, 16) else {
                return Err(Gone::Nonsense(line));
            };
            if size == 0 {
                break;
            }
            reply.body.extend(self.exactly(size).await?);
            if self.exactly(2).await? != b"\r\n" {
                return Err(Gone::Nonsense("a chunk without its end".to_owned()));
            }
        }
        loop {
            let line = self.until(b"\r\n").await?;
            if line == b"\r\n" {
                return Ok(());
            }
            reply.trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, Gone> {
        loop {
            if let Some(place) = memchr::memmem::find(&self.buffer, end) {
                return Ok(self.buffer.drain(..place + end.len()).collect());
            }
            self.more().await?;
        }
    }

    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Gone> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> Result<(), Gone> {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece).await {
            Ok(0) | Err(_) => Err(Gone::Closed(self.rest())),
            Ok(read) => {
                self.buffer.extend_from_slice(&piece[..read]);
                Ok(())
            }
        }
    }

    fn rest(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

const PATIENCE: Duration = Duration::from_secs(8);
