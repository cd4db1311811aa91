//! An app inside the test's process, on a thread of its own, for when a whole shop is too much: it records what it
//! gets, and can be stopped, slowed and cut.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::oneshot,
    task::JoinSet,
};

use super::eventually;

/// See the module.
pub struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
    stop: Option<(oneshot::Sender<()>, tokio::task::JoinHandle<()>)>,
}

/// One complete request as the app got it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub version: Version,
    /// Names in lower case, values in order. For the bytes see [`App::wire`].
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// What the app does with a complete request.
#[derive(Clone)]
pub enum Behaviour {
    /// 201 with `{"id": request id, "status": "accepted"}` to POST, else 200.
    Answer,
    /// The same, after a while.
    Slow(Duration),
    /// The same for one request after the other: whoever comes meanwhile waits in a queue.
    OneByOne(Duration),
    Status(StatusCode),
    /// Never an answer.
    Hang,
    /// Never an answer to requests for this path; the usual one to others.
    HangOn(&'static str),
    /// The usual answer, after a while for this path.
    SlowOn(&'static str, Duration),
    /// The connection closes instead of an answer.
    Cut,
    Custom(Arc<Custom>),
}

type Custom = dyn Fn(&Seen) -> Response<Bytes> + Send + Sync;

struct Shared {
    seen: Mutex<Vec<Seen>>,
    wire: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    behaviour: Mutex<Behaviour>,
    queue: tokio::sync::Mutex<()>,
}

impl App {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
    }

    /// At an address of this machine; an error if somebody is there.
    pub async fn start_at(address: SocketAddr) -> io::Result<Self> {
        let listener = bind(address)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            wire: Mutex::default(),
            behaviour: Mutex::new(Behaviour::Answer),
            queue: tokio::sync::Mutex::default(),
        });
        let mut app = Self { address, shared, runtime: Some(runtime), stop: None };
        app.listen_on(listener);
        Ok(app)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes its listener and every connection; both are gone when this returns.
    pub async fn stop(&mut self) {
        let (stop, server) = self.stop.take().expect("the app runs");
        drop(stop);
        server.await.unwrap();
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        assert!(self.stop.is_none(), "the app runs already");
        let address = self.address;
        self.listen_on(eventually(Duration::from_secs(10), async || bind(address)).await);
    }

    fn listen_on(&mut self, listener: std::net::TcpListener) {
        self.address = listener.local_addr().unwrap();
        let runtime = self.runtime.as_ref().unwrap();
        let (stop, stopped) = oneshot::channel();
        let server = runtime.handle().spawn(serve(listener, Arc::clone(&self.shared), stopped));
        self.stop = Some((stop, server));
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// Answers every request by `answer`.
    pub fn answer_with(&self, answer: impl Fn(&Seen) -> Response<Bytes> + Send + Sync + 'static) {
        self.behave(Behaviour::Custom(Arc::new(answer)));
    }

    /// All complete requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Complete requests of one method.
    pub fn seen_of(&self, method: &Method) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method == method).collect()
    }

    pub fn forget(&self) {
        self.shared.seen.lock().unwrap().clear();
        self.shared.wire.lock().unwrap().clear();
    }

    /// Every byte it got, connection by connection.
    pub fn wire(&self) -> Vec<Vec<u8>> {
        let wire = self.shared.wire.lock().unwrap();
        wire.iter().map(|bytes| bytes.lock().unwrap().clone()).collect()
    }

    /// Waits until the bodies of the POST requests are these, each once, in any order.
    pub async fn receives<const N: usize>(&self, bodies: [&str; N]) {
        let expected: BTreeSet<String> = bodies.iter().map(|&body| body.to_owned()).collect();
        eventually(Duration::from_secs(20), async || {
            let got = self.posted();
            let same = got.len() == N && got.iter().cloned().collect::<BTreeSet<_>>() == expected;
            if same { Ok(()) } else { Err(format!("the app got {got:?}, not {expected:?}")) }
        })
        .await;
    }

    /// Waits until the bodies of the POST requests are these, in this order.
    pub async fn receives_in_order<const N: usize>(&self, bodies: [&str; N]) {
        eventually(Duration::from_secs(20), async || {
            let got = self.posted();
            if got == bodies { Ok(()) } else { Err(format!("the app got {got:?}, not {bodies:?}")) }
        })
        .await;
    }

    fn posted(&self) -> Vec<String> {
        let text = |seen: &Seen| String::from_utf8_lossy(&seen.body).into_owned();
        self.seen_of(&Method::POST).iter().map(text).collect()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// With `SO_REUSEADDR`, so that the port of a stopped app can be had again at once.
fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.spawn(connection(Arc::clone(&shared), stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let bytes = Arc::default();
    shared.wire.lock().unwrap().push(Arc::clone(&bytes));
    let service = service_fn(|request| answer(Arc::clone(&shared), request));
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(4 << 20)
        .serve_connection(TokioIo::new(Recorded { stream, bytes }), service)
        .with_upgrades()
        .await;
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    let trailers = body.trailers().cloned();
    let seen = Seen {
        method: head.method,
        target: head.uri.to_string(),
        version: head.version,
        headers: head.headers,
        body: body.to_bytes(),
        trailers,
    };
    // standin's own question whether the app is there is no request of anybody's.
    if seen.headers.get("user-agent").is_none_or(|agent| agent != "standin-health") {
        shared.seen.lock().unwrap().push(seen.clone());
    }
    let behaviour = shared.behaviour.lock().unwrap().clone();
    match behaviour {
        Behaviour::Answer => Ok(usual(&seen)),
        Behaviour::Slow(delay) => {
            tokio::time::sleep(delay).await;
            Ok(usual(&seen))
        }
        Behaviour::OneByOne(delay) => {
            let _turn = shared.queue.lock().await;
            tokio::time::sleep(delay).await;
            Ok(usual(&seen))
        }
        Behaviour::Status(status) => {
            Ok(Response::builder().status(status).body(Full::default()).unwrap())
        }
        Behaviour::Hang => std::future::pending().await,
        Behaviour::HangOn(path) if seen.target == path => std::future::pending().await,
        Behaviour::SlowOn(path, delay) if seen.target == path => {
            tokio::time::sleep(delay).await;
            Ok(usual(&seen))
        }
        Behaviour::HangOn(_) | Behaviour::SlowOn(..) => Ok(usual(&seen)),
        Behaviour::Cut => Err(io::Error::other("cut on purpose")),
        Behaviour::Custom(answer) => Ok(answer(&seen).map(Full::new)),
    }
}

fn usual(seen: &Seen) -> Response<Full<Bytes>> {
    let id = seen.headers.get("x-request-id").map_or("", |id| id.to_str().unwrap_or(""));
    let body = serde_json::json!({ "id": id, "status": "accepted" }).to_string();
    let status = if seen.method == Method::POST { 201 } else { 200 };
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::from(body))
        .unwrap()
}

/// A stream that keeps a copy of what comes in.
struct Recorded {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.bytes.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
