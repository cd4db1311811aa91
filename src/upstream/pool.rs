//! What one thread has of connections to one upstream, endpoint by endpoint: idle ones, those that carry several exchanges
//! at once, and how many there may be. Opens none.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::atomic::Ordering,
    time::Duration,
};

use super::{
    UpstreamError,
    connection::Connection,
    endpoint::{Addresses, Endpoints, OpenNow},
    http2::Link,
    places::{Place, Places},
};
use crate::{
    config::{ConnectionsConfig, Http2, UpstreamConfig},
    egress::Through,
};

/// See the module.
pub(super) struct Pool(Vec<ToEndpoint>);

/// The connections to one endpoint.
pub(super) struct ToEndpoint {
    /// HTTP/1.1; the one used last is taken first.
    idle: RefCell<VecDeque<Connection>>,
    links: RefCell<Vec<Rc<Link>>>,
    pub(super) places: Rc<Places>,
    /// It may be spoken to in HTTP/2.
    may_be_http2: bool,
    /// What it spoke last.
    speaks_http1: Cell<bool>,
    is_opening: Cell<bool>,
    /// How many stay open however long they are idle.
    kept: Cell<usize>,
    /// How many were said to be open, and idle.
    said: Cell<(usize, usize)>,
    /// How many openings that others waited for have failed, and of what the last one.
    failures: Cell<u64>,
    failed_of: RefCell<Option<Fate>>,
}

/// Why there is no connection, for all who waited for it.
#[derive(Clone, Default)]
struct Fate {
    is_ours: bool,
    cause: String,
}

/// What a request wants of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Not one that was kept.
    pub(super) fresh: bool,
    /// HTTP/2 is no use.
    pub(super) http1: bool,
}

/// How a request comes to its connection.
pub(super) enum Next<'p> {
    Idle(Connection),
    /// A stream of it.
    On(Rc<Link>),
    /// They were quiet for so long that they must be asked first.
    Ask(Vec<Rc<Link>>),
    /// There may be one more.
    Open(Option<Place>, Option<Opening<'p>>),
    Wait,
}

/// One opens a connection that is good for all who want one now. They are told when it is there, or will not be.
pub(super) struct Opening<'p>(&'p ToEndpoint);

impl Pool {
    pub(super) fn new(endpoints: &Endpoints, config: &UpstreamConfig) -> Self {
        let to = |over_tls| ToEndpoint::new(config, over_tls);
        Self(endpoints.all().iter().map(|endpoint| to(endpoint.over_tls)).collect())
    }

    pub(super) fn to(&self, endpoint: usize) -> &ToEndpoint {
        &self.0[endpoint]
    }

    /// Closes what was idle for too long, or is gone, and says what is left.
    pub(super) fn reap(&self, endpoints: &Endpoints, config: &ConnectionsConfig) {
        for (to, endpoint) in self.0.iter().zip(endpoints.all()) {
            to.reap(config);
            let (open, idle) = to.count();
            to.say(&endpoint.connections, open, idle);
        }
    }

    /// They end with their thread, or with their app.
    pub(super) fn end(&self, endpoints: &Endpoints) {
        for (to, endpoint) in self.0.iter().zip(endpoints.all()) {
            to.say(&endpoint.connections, 0, 0);
        }
    }
}

impl ToEndpoint {
    fn new(config: &UpstreamConfig, over_tls: bool) -> Self {
        let connections = &config.connections;
        Self {
            idle: RefCell::default(),
            links: RefCell::default(),
            places: Places::new(connections.max, connections.queue),
            may_be_http2: match config.http2 {
                Http2::Alpn => over_tls,
                Http2::PriorKnowledge => true,
                Http2::Never => false,
            },
            speaks_http1: Cell::new(false),
            is_opening: Cell::new(false),
            kept: Cell::new(0),
            said: Cell::new((0, 0)),
            failures: Cell::new(0),
            failed_of: RefCell::default(),
        }
    }

    /// Whether several requests may share a connection to it.
    pub(super) fn may_be_http2(&self) -> bool {
        self.may_be_http2
    }

    /// An idle connection that is still open, leads to the endpoint, and was used within `within`.
    pub(super) fn take_idle(&self, within: Duration, addresses: &Addresses) -> Option<Connection> {
        loop {
            let mut connection = self.idle.borrow_mut().pop_back()?;
            if connection.idle_for() >= within {
                // The others are older.
                self.idle.borrow_mut().push_back(connection);
                return None;
            }
            if connection.is_alive() && connection.leads_to(addresses) {
                return Some(connection);
            }
        }
    }

    /// Closes idle connections that were not used within this time: one of them was found to lead nowhere.
    pub(super) fn forget_idle(&self, within: Duration) {
        self.idle.borrow_mut().retain(|connection| connection.idle_for() < within);
    }

    /// A tunnel through this egress proxy.
    pub(super) fn take_idle_through(&self, way: Through, within: Duration) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(at) = idle.iter().rposition(|connection| connection.way() == Some(way)) {
            let mut connection = idle.remove(at)?;
            if connection.idle_for() < within && connection.is_alive() {
                return Some(connection);
            }
        }
        None
    }

    /// A connection through this egress proxy on which one more request can begin.
    pub(super) fn link_through(&self, way: Through) -> Option<Rc<Link>> {
        let links = self.links.borrow();
        let fit = |link: &&Rc<Link>| link.way() == Some(way) && link.is_open() && link.has_room();
        links.iter().find(fit).cloned()
    }

    /// Keeps a connection whose exchange is over, if another can follow on it.
    pub(super) fn put(&self, mut connection: Connection, config: &ConnectionsConfig) {
        if connection.rest(config.max_requests) && config.idle > 0 {
            let mut idle = self.idle.borrow_mut();
            let oldest = if idle.len() >= config.idle { idle.pop_front() } else { None };
            idle.push_back(connection);
            drop((idle, oldest));
        } else {
            drop(connection);
        }
        self.places.tell_one();
    }

    /// How a request comes to a connection now. Who is in line comes before those that are not.
    pub(super) fn next(
        &self,
        wanted: Wanted,
        in_line: bool,
        config: &ConnectionsConfig,
        addresses: &Addresses,
    ) -> Next<'_> {
        if !in_line && self.places.is_crowded() {
            return Next::Wait;
        }
        let shared = self.may_be_http2 && !wanted.http1;
        if shared && let Some(next) = self.next_link(config, addresses) {
            return next;
        }
        if !wanted.fresh
            && let Some(kept) = self.take_idle(config.trusted(), addresses)
        {
            return Next::Idle(kept);
        }
        if self.may_be_http2 && wanted.http1 {
            // What HTTP/2 cannot carry has a connection beside those that are counted.
            return Next::Open(None, None);
        }
        let alone = shared && !self.speaks_http1.get();
        if alone && self.is_opening.get() {
            return Next::Wait;
        }
        loop {
            if let Some(place) = self.places.enter() {
                return Next::Open(Some(place), alone.then(|| self.opening()));
            }
            // One that may not be used makes room for one that may.
            let oldest = self.idle.borrow_mut().pop_front();
            if oldest.is_none() {
                return Next::Wait;
            }
        }
    }

    fn next_link(&self, config: &ConnectionsConfig, addresses: &Addresses) -> Option<Next<'_>> {
        self.links.borrow_mut().retain(|link| {
            let leads = link.is_open() && (link.way().is_some() || link.leads_to(addresses));
            if !leads {
                link.leave();
            }
            leads
        });
        let links = self.links.borrow();
        let mut doubtful = Vec::new();
        for link in links.iter().filter(|link| link.way().is_none() && link.has_room()) {
            if link.was_heard_within(config.trust_idle) {
                return Some(Next::On(Rc::clone(link)));
            }
            doubtful.push(Rc::clone(link));
        }
        (!doubtful.is_empty()).then_some(Next::Ask(doubtful))
    }

    /// Whether the next in line would find anything.
    pub(super) fn has_room(&self) -> bool {
        let most = self.places.most();
        most.is_none_or(|most| self.places.taken() < most.get())
            || !self.idle.borrow().is_empty()
            || self.links.borrow().iter().any(|link| link.is_open() && link.has_room())
    }

    /// A place for one that nobody waits for yet; none where all are taken, or one is being opened for all.
    pub(super) fn begin_opening(&self) -> Option<(Place, Option<Opening<'_>>)> {
        let alone = self.may_be_http2 && !self.speaks_http1.get();
        if alone && self.is_opening.get() {
            return None;
        }
        let place = self.places.enter()?;
        Some((place, alone.then(|| self.opening())))
    }

    fn opening(&self) -> Opening<'_> {
        self.is_opening.set(true);
        Opening(self)
    }

    pub(super) fn is_http1(&self) {
        self.speaks_http1.set(true);
    }

    pub(super) fn add_link(&self, link: Rc<Link>) {
        self.speaks_http1.set(false);
        self.links.borrow_mut().push(link);
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// What the last opening that others waited for failed of.
    pub(super) fn failure(&self, endpoint: &str) -> UpstreamError {
        let fate = self.failed_of.borrow().clone();
        let Fate { is_ours, cause } = fate.unwrap_or_default();
        if is_ours {
            UpstreamError::Ourselves { cause }
        } else {
            UpstreamError::Connect { endpoint: endpoint.to_owned(), cause }
        }
    }

    /// Somebody looks after them: so many stay open from now on.
    pub(super) fn keep(&self, count: usize) {
        self.kept.set(count);
    }

    /// Connections that take requests, those that are gone not counted.
    pub(super) fn open_now(&self) -> usize {
        self.idle.borrow_mut().retain_mut(Connection::is_alive);
        self.links.borrow_mut().retain(|link| link.is_open());
        self.places.taken()
    }

    fn count(&self) -> (usize, usize) {
        let open = self.open_now();
        let links = self.links.borrow();
        let idle = self.idle.borrow().len()
            + links.iter().filter(|link| link.idle_for().is_some()).count();
        // Tunnels through egress proxies have no places.
        (open.max(idle), idle)
    }

    fn say(&self, to: &OpenNow, open: usize, idle: usize) {
        let (open_before, idle_before) = self.said.replace((open, idle));
        for (count, now, before) in [(&to.open, open, open_before), (&to.idle, idle, idle_before)] {
            count.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    fn reap(&self, config: &ConnectionsConfig) {
        let surplus = || self.places.taken() > self.kept.get() || self.places.taken() == 0;
        loop {
            let mut idle = self.idle.borrow_mut();
            let is_old = idle.front().is_some_and(|one| one.idle_for() >= config.idle_time);
            if !is_old || !surplus() {
                break;
            }
            let oldest = idle.pop_front();
            drop((idle, oldest));
        }
        self.links.borrow_mut().retain(|link| {
            let is_old = link.idle_for().is_some_and(|idle| idle >= config.idle_time);
            if (is_old && surplus()) || !link.is_open() {
                link.leave();
                return false;
            }
            true
        });
    }
}

impl Opening<'_> {
    /// It will not be there, for all who wait.
    pub(super) fn fails(&self, error: &UpstreamError) {
        let fate = match error {
            UpstreamError::Connect { cause, .. } => Fate { is_ours: false, cause: cause.clone() },
            error => Fate { is_ours: true, cause: error.to_string() },
        };
        self.0.failed_of.replace(Some(fate));
        self.0.failures.set(self.0.failures.get().wrapping_add(1));
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.is_opening.set(false);
        self.0.places.tell_all();
    }
}
