//! The toy shop: a real app with a ledger of its own, in a process of its own, that can be made to misbehave.
//!
//! `standin demo` and the tests put standin in front of it. It refuses duplicates as a careful app would, and writes
//! down each one it refused.

mod faults;
mod ledger;

use std::{
    convert::Infallible,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

pub use self::faults::{FaultKind, Faults};
use self::{
    faults::{FaultBoard, HalfAnswer},
    ledger::{CartChange, Ledger, Order, Placed},
};

/// `standin toy-shop`: hidden, for the demo and the tests.
#[derive(Clone, Debug, clap::Args)]
pub struct ShopArgs {
    /// Where customers connect.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Where its faults are switched: `GET` and `PUT /faults`.
    #[arg(long)]
    pub control: Option<SocketAddr>,
    /// Its SQLite file.
    #[arg(long)]
    pub ledger: PathBuf,
    /// The header by which it knows a duplicate.
    #[arg(long, value_enum, default_value_t)]
    pub dedupe: Dedupe,
    /// How long it takes between applying and answering, until its faults say otherwise.
    #[arg(long, default_value_t = 0)]
    pub answers_after_ms: u64,
}

/// See [`ShopArgs::dedupe`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Dedupe {
    #[default]
    #[value(name = "x-request-id")]
    RequestId,
    #[value(name = "idempotency-key")]
    IdempotencyKey,
    /// It applies whatever comes, as often as it comes.
    #[value(name = "none")]
    Nothing,
}

/// Runs the shop until the process is killed. Prints `listening on ADDR` when it is ready.
pub fn run(args: &ShopArgs) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(args))
}

struct Shop {
    ledger: Ledger,
    faults: FaultBoard,
    dedupe: Dedupe,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The connection is to be cut without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut on purpose")]
struct Cut;

async fn serve(args: &ShopArgs) -> io::Result<()> {
    let shop = Arc::new(Shop {
        ledger: Ledger::open(&args.ledger).map_err(io::Error::other)?,
        faults: FaultBoard::new(Faults {
            delay_after_ms: args.answers_after_ms,
            ..Faults::default()
        }),
        dedupe: args.dedupe,
    });
    let control = match args.control {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let listener = bind(args.listen).await?;
    let mut ready = format!("listening on {}\n", listener.local_addr()?);
    if let Some(control) = &control {
        ready = format!("control on {}\n{ready}", control.local_addr()?);
    }
    io::stdout().write_all(ready.as_bytes())?;
    io::stdout().flush()?;

    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                stream.set_nodelay(true)?;
                connections.spawn(customer(Arc::clone(&shop), stream));
            }
            accepted = accept(control.as_ref()) => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(controller(Arc::clone(&shop), stream));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// A restarted shop wants its old port, which a passing connection may hold for a moment.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    for _ in 0..100 {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => return other,
        }
    }
    TcpListener::bind(address).await
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn customer(shop: Arc<Shop>, stream: tokio::net::TcpStream) {
    let service = service_fn(|request| shop.answer(request));
    // An error here is a customer that left, or a fault that was asked for.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn controller(shop: Arc<Shop>, stream: tokio::net::TcpStream) {
    let service = service_fn(|request: Request<Incoming>| async {
        let asked = request.method().clone();
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        Ok::<_, Infallible>(match body {
            Ok(body) => shop.faults.control(&asked, &body),
            Err(_) => faults::refusal("unreadable"),
        })
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
        let (head, body) = request.into_parts();
        // The whole request comes first, as with most apps behind a framework.
        let body = Limited::new(body, LARGEST_BODY).collect().await.map_err(|_| Cut)?.to_bytes();
        match (&head.method, head.uri.path()) {
            (&Method::GET | &Method::HEAD, "/") => {
                Ok(answer(StatusCode::OK, &json!({ "shop": "open" })))
            }
            (&Method::GET, "/orders") => self.counts().await,
            (&Method::POST, "/checkout") => {
                self.with_faults(&body, self.checkout(&head, &body)).await
            }
            (&Method::PUT, path) if path.starts_with("/carts/") => {
                self.with_faults(&body, self.change_cart(&head, &body)).await
            }
            _ => Ok(answer(StatusCode::NOT_FOUND, &json!({ "error": "no such page" }))),
        }
    }

    /// Applies an order or a change, in the way that the faults switched on now ask for.
    async fn with_faults(
        &self,
        body: &Bytes,
        apply: impl Future<Output = Response<Body>>,
    ) -> Result<Response<Body>, Cut> {
        let faults = self.faults.now();
        tokio::time::sleep(Duration::from_millis(faults.delay_before_ms)).await;
        if faults.declines(body) {
            let why = json!({ "error": "the shop does not sell this" });
            return Ok(answer(StatusCode::UNPROCESSABLE_ENTITY, &why));
        }
        let kind = if self.faults.hits_this_one(&faults) { faults.kind } else { FaultKind::None };
        if let Some(early) = kind.before_applying() {
            return match early {
                faults::Early::Answer(early) => Ok(early),
                faults::Early::Cut => Err(Cut),
                faults::Early::Hang => std::future::pending().await,
            };
        }
        let applied = apply.await;
        tokio::time::sleep(Duration::from_millis(faults.delay_after_ms)).await;
        match kind {
            FaultKind::DropAfter => Err(Cut),
            FaultKind::HangAfter => std::future::pending().await,
            FaultKind::ErrorAfter => {
                Ok(answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "internal" })))
            }
            FaultKind::HalfAnswer => Ok(HalfAnswer::of(applied).await),
            _ => Ok(applied),
        }
    }

    async fn checkout(&self, head: &http::request::Parts, body: &Bytes) -> Response<Body> {
        let Some(order) = Order::read(head, body, self.dedupe) else {
            return answer(StatusCode::BAD_REQUEST, &json!({ "error": "not an order" }));
        };
        match self.ledger.place(order).await {
            Ok(Placed::New { order_id } | Placed::Duplicate { order_id }) => {
                answer(StatusCode::CREATED, &json!({ "id": order_id, "status": "accepted" }))
            }
            Ok(Placed::Conflict) => {
                let why = json!({ "error": "another order has this id" });
                answer(StatusCode::UNPROCESSABLE_ENTITY, &why)
            }
            Err(error) => broken(&error),
        }
    }

    async fn change_cart(&self, head: &http::request::Parts, body: &Bytes) -> Response<Body> {
        match self.ledger.change_cart(CartChange::read(head, body, self.dedupe)).await {
            Ok(version) => answer(StatusCode::OK, &json!({ "version": version })),
            Err(error) => broken(&error),
        }
    }

    async fn counts(&self) -> Result<Response<Body>, Cut> {
        Ok(match self.ledger.counts().await {
            Ok(counts) => answer(StatusCode::OK, &counts),
            Err(error) => broken(&error),
        })
    }
}

fn broken(error: &ledger::LedgerError) -> Response<Body> {
    let why = json!({ "error": error.to_string() });
    answer(StatusCode::INTERNAL_SERVER_ERROR, &why)
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

const LARGEST_BODY: usize = 16 << 20;
