//! An app that speaks HTTP/1.1 and HTTP/2 on one port, in clear or over TLS, on a thread of its own. It counts its
//! connections, what it gets on them, and what was given up.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// See the module.
pub struct Http2App {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// One request as it got it.
#[derive(Clone, Debug)]
pub struct SeenByHttp2App {
    pub connection: usize,
    pub method: Method,
    pub path: String,
    pub authority: Option<String>,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// How it is made.
#[derive(Clone, Default)]
pub struct Making {
    pub tls: Option<Arc<ServerConfig>>,
    /// Streams that it allows at once.
    pub streams: Option<u32>,
}

#[derive(Default)]
struct Shared {
    making: Making,
    connections: AtomicUsize,
    open: AtomicUsize,
    given_up: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    seen: Mutex<Vec<SeenByHttp2App>>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Http2App {
    pub fn start() -> Self {
        Self::made(Making::default())
    }

    pub fn made(making: Making) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { making, ..Shared::default() });
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// With its scheme.
    pub fn url(&self) -> String {
        let scheme = if self.shared.making.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// All requests but standin's own questions.
    pub fn seen(&self) -> Vec<SeenByHttp2App> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How often it got requests for a path.
    pub fn seen_of(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// Connections so far, those of standin's own questions among them.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Requests whose answer nobody waited for to its end.
    pub fn given_up(&self) -> usize {
        self.shared.given_up.load(Ordering::SeqCst)
    }

    /// Most requests that it had in hand at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most_at_once.load(Ordering::SeqCst)
    }
}

impl Drop for Http2App {
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
                let (number, shared) =
                    (shared.connections.fetch_add(1, Ordering::SeqCst), Arc::clone(&shared));
                connections.spawn(async move {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    match shared.making.tls.clone() {
                        None => speak(stream, number, &shared).await,
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                speak(stream, number, &shared).await;
                            }
                        }
                    }
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn speak<S>(stream: S, number: usize, shared: &Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(shared.making.streams.unwrap_or(1000));
    let service = service_fn(|request| answer(request, number, Arc::clone(shared)));
    // A connection that breaks is the other side's affair.
    drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
}

/// Counts what is in hand, and what is dropped before it is done.
struct InHand(Arc<Shared>, bool);

impl InHand {
    fn new(shared: &Arc<Shared>) -> Self {
        let now = shared.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_at_once.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(shared), false)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
        if !self.1 {
            self.0.given_up.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<Response<Body>, Infallible> {
    if request.headers().get("user-agent").is_some_and(|agent| agent == "standin-health") {
        return Ok(Response::new(Full::default().boxed()));
    }
    let mut in_hand = InHand::new(&shared);
    if request.headers().contains_key("upgrade") {
        in_hand.1 = true;
        return Ok(upgraded(&mut request));
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if path == "/never-read" {
        return std::future::pending().await;
    }
    let Ok(body) = body.collect().await else { return std::future::pending().await };
    let trailers = body.trailers().cloned();
    let body = body.to_bytes();
    shared.seen.lock().unwrap().push(SeenByHttp2App {
        connection,
        method: head.method,
        path: path.clone(),
        authority: head.uri.authority().map(ToString::to_string),
        version: head.version,
        headers: head.headers,
        body: body.clone(),
        trailers: trailers.clone(),
    });
    let answer = match path.split('/').collect::<Vec<_>>()[1..] {
        ["hang"] => std::future::pending().await,
        ["slow", millis] => {
            tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
            Full::new(body).boxed()
        }
        // A piece at a time, with trailers.
        ["pieces", count] => {
            let count: usize = count.parse().unwrap();
            let mut end = HeaderMap::new();
            end.insert("x-sum", count.into());
            let pieces = (0..count).map(|_| Frame::data(Bytes::from(vec![b'x'; 16 << 10])));
            let frames = pieces.chain([Frame::trailers(end)]).map(Ok::<_, Infallible>);
            BodyExt::boxed(StreamBody::new(stream::iter(frames)))
        }
        ["endless"] => {
            let piece = || Frame::data(Bytes::from(vec![b'x'; 16 << 10]));
            let frames = std::iter::repeat_with(piece).map(Ok::<_, Infallible>);
            BodyExt::boxed(StreamBody::new(stream::iter(frames)))
        }
        _ => Full::new(body).boxed(),
    };
    in_hand.1 = true;
    let status = if path == "/orders" { StatusCode::CREATED } else { StatusCode::OK };
    Ok(Response::builder().status(status).body(answer).unwrap())
}

/// To a protocol that says everything twice.
#[expect(clippy::disallowed_methods, reason = "ends with its connection or its runtime")]
fn upgraded(request: &mut Request<Incoming>) -> Response<Body> {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        while let Ok(byte) = stream.read_u8().await {
            if stream.write_all(&[byte, byte]).await.is_err() {
                break;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(Full::default().boxed())
        .unwrap()
}
