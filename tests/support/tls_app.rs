//! An app that speaks TLS, HTTP/1.1 or HTTP/2 as agreed, on a thread of its own. It records what it gets.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_rustls::TlsAcceptor;

/// See the module.
pub struct TlsApp {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// One request as it got it.
#[derive(Clone, Debug)]
pub struct SeenOverTls {
    pub method: Method,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Bytes,
}

struct Shared {
    config: Mutex<Arc<ServerConfig>>,
    seen: Mutex<Vec<SeenOverTls>>,
    handshakes: AtomicUsize,
}

impl TlsApp {
    pub fn start(config: ServerConfig) -> Self {
        let shared = Arc::new(Shared {
            config: Mutex::new(Arc::new(config)),
            seen: Mutex::default(),
            handshakes: AtomicUsize::new(0),
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

    /// `https://` with its address.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From the next connection on.
    pub fn speak(&self, config: ServerConfig) {
        *self.shared.config.lock().unwrap() = Arc::new(config);
    }

    /// All requests but standin's own questions.
    pub fn seen(&self) -> Vec<SeenOverTls> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Handshakes that came to their end.
    pub fn handshakes(&self) -> usize {
        self.shared.handshakes.load(Ordering::SeqCst)
    }
}

/// Its listener and every connection are gone when this returns.
impl Drop for TlsApp {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not on a thread that drives other tasks: there a runtime must not wait for its own.
            std::thread::scope(|scope| {
                scope.spawn(move || runtime.shutdown_timeout(PATIENCE));
            });
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn serve(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.spawn(connection(stream, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: tokio::net::TcpStream, shared: Arc<Shared>) {
    let config = Arc::clone(&shared.config.lock().unwrap());
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    shared.handshakes.fetch_add(1, Ordering::SeqCst);
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(|request| answer(request, Arc::clone(&shared)));
    let stream = TokioIo::new(stream);
    // A connection that breaks is the other side's affair.
    if is_http2 {
        drop(http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await);
    } else {
        drop(http1::Builder::new().serve_connection(stream, service).await);
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let large = head.uri.path().strip_prefix("/bytes/").and_then(|n| n.parse().ok());
    if head.headers.get("user-agent").is_none_or(|agent| agent != "standin-health") {
        shared.seen.lock().unwrap().push(SeenOverTls {
            method: head.method,
            version: head.version,
            headers: head.headers,
            body,
        });
    }
    let body = large.map_or_else(|| Bytes::from_static(b"over TLS"), |n| vec![b'x'; n].into());
    Ok(Response::new(Full::new(body)))
}
