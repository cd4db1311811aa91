//! Accepts clients (HTTP/1.1, HTTP/2, in clear or over TLS), bounds what they may cost, and serves a connection until it
//! closes or drains. Knows "some service", not what it does.

mod accepting;
mod arrival;
mod drain;
pub mod framing;
mod per_client;
mod presence;
mod protocols;
pub mod proxy_protocol;
mod socket;

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error as StdError,
    future::Future,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use filters::peer::Client;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::body::Incoming;
use tower_service::Service;

pub use self::per_client::PerClient;
use self::{
    accepting::Accepting, arrival::Arrival, framing::FramingWatch, per_client::ClientPlace,
    protocols::Protocols, socket::Watched,
};
pub use self::{drain::Drain, presence::Presence};
use crate::{
    client_body::{BodyLimits, ReceivedBody, Sender},
    config::ListenConfig,
    telemetry::{WorkerCounters, add, subtract},
    tls::server::ServerTls,
};

/// What all workers share of listening.
#[derive(Clone, Debug)]
pub struct Listening {
    pub config: ListenConfig,
    /// Absent: clients speak in clear.
    pub tls: Option<Arc<ServerTls>>,
    /// Open connections of all workers.
    pub connections: Arc<AtomicUsize>,
    /// And of each client.
    pub per_client: PerClient,
}

/// Accepts until the drain begins, then takes what is queued already, and returns when the last connection is over.
pub async fn serve<S, B>(
    listener: TcpListener,
    listening: Listening,
    chain: S,
    drain: Rc<Drain>,
    counters: Arc<WorkerCounters>,
) -> io::Result<()>
where
    S: Service<Request<ReceivedBody>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let accepting = Accepting::new(listener)?;
    let ways = Ways {
        arrival: Rc::new(Arrival::new(&listening.config, listening.tls.clone())),
        protocols: Rc::new(Protocols::new(&listening.config)),
    };
    let open = Rc::new(OpenConnections { all: Arc::clone(&listening.connections), counters });
    loop {
        wait_for_room(&listening, &drain).await;
        let Some(accepted) = drain.unless_begun(accepting.next()).await else { break };
        match accepted {
            Ok((stream, peer)) => {
                // Another worker may have given the last place away meanwhile.
                let place = place(&open, &listening, &drain).await;
                begin(stream, peer, &listening, &ways, chain.clone(), &drain, place)
            }
            Err(error) => after_accept_error(&error).await,
        }
    }
    // Those in the kernel's queue were not refused: they are served, too.
    for (stream, peer) in accepting.into_queue() {
        let place = place(&open, &listening, &drain).await;
        begin(stream, peer, &listening, &ways, chain.clone(), &drain, place);
    }
    drain.all_over().await;
    Ok(())
}

/// What all connections of a worker go through.
struct Ways {
    arrival: Rc<Arrival>,
    protocols: Rc<Protocols>,
}

fn begin<S, B>(
    stream: TcpStream,
    peer: SocketAddr,
    listening: &Listening,
    ways: &Ways,
    chain: S,
    drain: &Rc<Drain>,
    place: Place,
) where
    S: Service<Request<ReceivedBody>, Response = Response<B>, Error = Infallible> + 'static,
    S::Future: 'static,
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    // To one that has its number, a closed connection says it best: no head is read to answer to. Who comes through a
    // load balancer is known a little later.
    let its_place: Option<ClientPlace> = if ways.arrival.knows_client() {
        let Some(its_place) = listening.per_client.enter(peer.ip()) else { return };
        Some(its_place)
    } else {
        None
    };
    // It has what its listener has; a failure here only costs latency.
    if !socket::ACCEPTED_WITHOUT_DELAY {
        stream.set_nodelay(true).ok();
    }
    let (limits, per_client) = (&listening.config.limits, listening.per_client.clone());
    let head_timeout = limits.head_timeout;
    let limits = BodyLimits { length: limits.body, idle: limits.body_idle, rate: limits.min_rate };
    // Inside from now on: the drain must not be over before its task has begun.
    let (arrival, protocols, here) =
        (Rc::clone(&ways.arrival), Rc::clone(&ways.protocols), drain.enter());
    // In a box: a task is moved more than once until it runs, and once more when it ends.
    spawn(Box::pin(async move {
        let arrived = match arrival.of(stream, peer, &here).await {
            Ok(arrived) => arrived,
            Err(refused) => {
                add(&place.0.counters.connections_turned_away[refused.kind()], 1);
                return tracing::debug!(%peer, %refused, "connection refused");
            }
        };
        let its_place = its_place.or_else(|| per_client.enter(arrived.address.ip()));
        let (_place, Some(_its_place)) = (place, its_place) else { return };
        let client = Client { over_tls: arrived.over_tls, ..Client::new(arrived.address) };
        let watch = FramingWatch::new(client.framing.clone());
        let presence = arrived.presence;
        let stream = Box::new(Watched::new(arrived.stream, watch, head_timeout));
        let service = Rc::new(Adapter {
            chain: RefCell::new(chain),
            sender: Rc::new(Sender { client, limits }),
            presence: presence.clone(),
        });
        if let Err(error) = protocols.serve(stream, service, &here).await {
            tracing::debug!(%peer, error = &*error, "connection ended");
        }
        presence.settle().await;
    }));
}

/// hyper's view of the filter chain: each request with what is known of its connection.
struct Adapter<S> {
    chain: RefCell<S>,
    sender: Rc<Sender>,
    presence: Presence,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Adapter<S>
where
    S: Service<Request<ReceivedBody>, Response = Response<B>, Error = Infallible>,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> S::Future {
        // hyper itself tells of HTTP/2 clients that leave: it drops the request's future.
        let presence = (request.version() < Version::HTTP_2).then(|| self.presence.clone());
        let sender = Rc::clone(&self.sender);
        let request = request.map(|incoming| ReceivedBody::new(incoming, sender, presence));
        self.chain.borrow_mut().call(request)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "connection tasks belong here; the drain waits for all of them"
)]
fn spawn(future: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(future);
}

/// Counts open connections, of this worker and of all.
struct OpenConnections {
    all: Arc<AtomicUsize>,
    counters: Arc<WorkerCounters>,
}

struct Place(Rc<OpenConnections>);

impl OpenConnections {
    /// None when there are `most` already.
    fn enter(open: &Rc<Self>, most: usize) -> Option<Place> {
        let one_more = |now: usize| (now < most).then_some(now + 1);
        open.all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        add(&open.counters.connections_open, 1);
        add(&open.counters.connections_total, 1);
        Some(Place(Rc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.all.fetch_sub(1, Ordering::Relaxed);
        subtract(&self.0.counters.connections_open, 1);
    }
}

/// Above the limit nobody is accepted: new ones wait in the kernel's queue.
async fn wait_for_room(listening: &Listening, drain: &Drain) {
    while listening.connections.load(Ordering::Relaxed) >= listening.config.limits.connections
        && !drain.has_begun()
    {
        tokio::time::sleep(ROOM_LOOK).await;
    }
}

/// A place for a connection that was accepted; the drain makes room for all that are left.
async fn place(open: &Rc<OpenConnections>, listening: &Listening, drain: &Drain) -> Place {
    loop {
        let most = if drain.has_begun() { usize::MAX } else { listening.config.limits.connections };
        if let Some(place) = OpenConnections::enter(open, most) {
            return place;
        }
        tokio::time::sleep(ROOM_LOOK).await;
    }
}

const ROOM_LOOK: Duration = Duration::from_millis(10);

/// Out of files or memory: wait, or the loop spins. A client that left before it was accepted is nothing.
async fn after_accept_error(error: &io::Error) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::warn!(%error, "cannot accept");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Binds one listener per worker to the same address. Another program that listens there is found out first:
/// `SO_REUSEPORT` alone would share its port.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let probe = socket::listening(address, false)?;
    let address = SocketAddr::new(address.ip(), probe.local_addr()?.port());
    drop(probe);
    (0..workers).map(|_| socket::listening(address, true)).collect()
}
