//! Clients: one connection kept alive, HTTP/2 with prior knowledge, and raw bytes.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// An answer read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Why there is no answer, from the client's side.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// It may have been taken.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    #[error("nothing within {0:?}")]
    Slow(Duration),
}

/// A client with one HTTP/1.1 connection, opened when needed and kept alive.
pub struct Client {
    address: SocketAddr,
    patience: Duration,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
    connection: JoinSet<()>,
}

impl Answer {
    /// Empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the body of {self:?}"))
    }

    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let trailers = body.trailers().cloned();
        Ok(Self {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body: body.to_bytes(),
            trailers,
        })
    }
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        let patience = Duration::from_secs(60);
        Self { address, patience, sender: None, connection: JoinSet::new() }
    }

    /// Gives up after this (and closes the connection).
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends it and reads the whole answer; `host` is filled in where absent.
    pub async fn send(&mut self, mut request: Request<Bytes>) -> Result<Answer, NoAnswer> {
        let host = HeaderValue::from_str(&self.address.to_string()).unwrap();
        request.headers_mut().entry(header::HOST).or_insert(host);
        let patience = self.patience;
        let answer = timeout(patience, self.exchange(request.map(Full::new)))
            .await
            .unwrap_or(Err(NoAnswer::Slow(patience)));
        if answer.is_err() {
            self.close();
        }
        answer
    }

    pub fn close(&mut self) {
        self.sender = None;
        self.connection.abort_all();
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let sender = self.connected().await?;
        let response = sender.send_request(request).await.map_err(NoAnswer::Broken)?;
        Answer::read(response).await.map_err(NoAnswer::Broken)
    }

    async fn connected(&mut self) -> Result<&mut http1::SendRequest<Full<Bytes>>, NoAnswer> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.address).await.map_err(NoAnswer::Connect)?;
            stream.set_nodelay(true).map_err(NoAnswer::Connect)?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(NoAnswer::Broken)?;
            self.connection.spawn(async move {
                let _ = connection.await;
            });
            self.sender = Some(sender);
        }
        Ok(self.sender.as_mut().expect("just connected"))
    }
}

/// A client with one HTTP/2 connection, prior knowledge.
pub struct Http2Client {
    address: SocketAddr,
    sender: http2::SendRequest<Full<Bytes>>,
    _connection: JoinSet<()>,
}

impl Http2Client {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _ = connection.await;
        });
        Self { address, sender, _connection: driver }
    }

    pub async fn send(&self, request: Request<Bytes>) -> Result<Answer, NoAnswer> {
        let (mut head, body) = request.into_parts();
        if head.uri.authority().is_none() {
            let whole = format!("http://{}{}", self.address, head.uri);
            head.uri = whole.parse().unwrap();
        }
        let mut sender = self.sender.clone();
        let request = Request::from_parts(head, Full::new(body));
        let response = sender.send_request(request).await.map_err(NoAnswer::Broken)?;
        Answer::read(response).await.map_err(NoAnswer::Broken)
    }
}

/// A connection that speaks bytes.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub async fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// Writes as much as the other side takes; it may close early.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// "I have said all": the other direction stays open.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes with a reset instead of a FIN.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// What comes until the other side closes, resets, or is silent for `silence`.
    pub async fn read_all(&mut self, silence: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while let Ok(Ok(read @ 1..)) = timeout(silence, self.stream.read(&mut buffer)).await {
            all.extend_from_slice(&buffer[..read]);
        }
        all
    }

    /// What comes until it contains `end`; None when the other side closes before, or after `limit`.
    pub async fn read_until(&mut self, end: &str, limit: Duration) -> Option<String> {
        let mut all = Vec::new();
        let whole = async {
            while memchr::memmem::find(&all, end.as_bytes()).is_none() {
                all.push(self.stream.read_u8().await.ok()?);
            }
            Some(())
        };
        timeout(limit, whole).await.ok().flatten()?;
        Some(String::from_utf8_lossy(&all).into_owned())
    }
}

/// Sends bytes on a connection of their own and reads until the other side closes or is silent for a while.
pub async fn raw(address: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut connection = Raw::to(address).await;
    connection.write(bytes).await;
    let answer = connection.read_all(Duration::from_secs(2)).await;
    String::from_utf8_lossy(&answer).into_owned()
}
