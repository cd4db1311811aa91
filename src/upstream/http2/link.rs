//! One HTTP/2 connection as those see it who have streams on it: how many more it takes, and whether it is still good.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::wire::Traffic;
use crate::{
    egress::Through,
    upstream::{
        endpoint::Addresses,
        places::{Place, Places},
    },
};

/// See the module. Whoever has a stream on it holds it; when the last one lets go it is closed in order.
pub(in crate::upstream) struct Link {
    send: SendRequest<Bytes>,
    common: Rc<Common>,
    /// Streams in use.
    streams: Cell<usize>,
    /// Requests so far.
    requests: Cell<u64>,
    most_requests: Option<u64>,
    idle_since: Cell<Instant>,
    /// Where it leads, and how often the endpoint's addresses had changed when that was known to be right.
    peer: Option<SocketAddr>,
    changes: Cell<u64>,
    /// The egress proxy it leads through.
    way: Option<Through>,
}

/// What its driver knows, too.
pub(super) struct Common {
    traffic: Rc<Traffic>,
    /// Streams that the app allows at once; none before it has said so.
    allowed: Cell<usize>,
    standing: Cell<Standing>,
    doubt: Cell<bool>,
    driver: RefCell<Option<Waker>>,
    heard: Notify,
    /// Its place among the connections of its endpoint, while it takes requests.
    place: RefCell<Option<Place>>,
    places: Rc<Places>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    /// It takes no more requests; those that it has may end.
    Leaving,
    /// To be closed with all that is on it.
    Cut,
    Over,
}

/// What is known of a connection when it is made.
pub(in crate::upstream) struct Made {
    pub(in crate::upstream) place: Option<Place>,
    pub(in crate::upstream) places: Rc<Places>,
    pub(in crate::upstream) most_requests: Option<u64>,
    pub(in crate::upstream) peer: Option<SocketAddr>,
    pub(in crate::upstream) changes: u64,
    pub(in crate::upstream) way: Option<Through>,
}

/// One stream's share of the connection.
pub(super) struct Slot(Rc<Link>);

/// Streams that we begin at once on one connection, however many the app allows: together with the window of each this
/// bounds what slow clients can hold of others.
pub(super) const MOST_STREAMS: usize = 256;

impl Link {
    pub(super) fn new(send: SendRequest<Bytes>, common: Rc<Common>, made: Made) -> Rc<Self> {
        Rc::new(Self {
            send,
            common,
            streams: Cell::new(0),
            requests: Cell::new(0),
            most_requests: made.most_requests,
            idle_since: Cell::new(Instant::now()),
            peer: made.peer,
            changes: Cell::new(made.changes),
            way: made.way,
        })
    }

    /// For one request. Each has one of its own: one that is used again waits for the stream before.
    pub(super) fn send(&self) -> SendRequest<Bytes> {
        self.send.clone()
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.common.traffic
    }

    /// The egress proxy it leads through.
    pub(in crate::upstream) fn way(&self) -> Option<Through> {
        self.way
    }

    /// Whether it takes requests: neither is it over, nor has the app said that it will be.
    pub(in crate::upstream) fn is_open(&self) -> bool {
        if self.common.standing.get() != Standing::Open {
            return false;
        }
        let cx = &mut Context::from_waker(Waker::noop());
        let is_leaving = matches!(self.send().poll_ready(cx), Poll::Ready(Err(_)));
        if is_leaving {
            self.leave();
        }
        !is_leaving
    }

    /// Whether one more request can begin on it now.
    pub(in crate::upstream) fn has_room(&self) -> bool {
        let allowed = self.send.current_max_send_streams();
        self.streams.get() < allowed.min(MOST_STREAMS)
    }

    /// Whether the app was heard of within this time.
    pub(in crate::upstream) fn was_heard_within(&self, time: Duration) -> bool {
        self.traffic().heard_at().elapsed() < time
    }

    /// Whether its address is still one of the endpoint's.
    pub(in crate::upstream) fn leads_to(&self, addresses: &Addresses) -> bool {
        let changes = addresses.changes();
        if self.changes.get() != changes {
            if !self.peer.is_some_and(|peer| addresses.has(&peer)) {
                return false;
            }
            self.changes.set(changes);
        }
        true
    }

    /// For how long it has had no stream; none while it has.
    pub(in crate::upstream) fn idle_for(&self) -> Option<Duration> {
        (self.streams.get() == 0).then(|| self.idle_since.get().elapsed())
    }

    /// Requests so far.
    pub(in crate::upstream) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// A share of it for one request.
    pub(super) fn take_slot(self: &Rc<Self>) -> Slot {
        self.streams.set(self.streams.get() + 1);
        self.requests.set(self.requests.get() + 1);
        if self.most_requests.is_some_and(|most| self.requests.get() >= most) {
            self.leave();
        }
        Slot(Rc::clone(self))
    }

    /// Asks the app whether it is there, and waits until anything comes. If nothing does, no request is given to it any
    /// more, and where it has none it is closed.
    pub(in crate::upstream) async fn is_there(&self, until: Instant) -> bool {
        let heard = self.common.heard.notified();
        self.common.doubt.set(true);
        self.common.wake();
        let heard = timeout_at(until, heard).await.is_ok();
        if !heard {
            self.leave();
            if self.streams.get() == 0 {
                self.common.cut();
            }
        }
        heard && self.common.standing.get() == Standing::Open
    }

    /// No more requests; it ends with those that it has.
    pub(in crate::upstream) fn leave(&self) {
        if self.common.standing.get() == Standing::Open {
            self.common.standing.set(Standing::Leaving);
        }
        self.common.give_place_back();
    }
}

impl Common {
    pub(super) fn new(traffic: Rc<Traffic>, place: Option<Place>, places: Rc<Places>) -> Rc<Self> {
        Rc::new(Self {
            traffic,
            allowed: Cell::new(0),
            standing: Cell::new(Standing::Open),
            doubt: Cell::new(false),
            driver: RefCell::default(),
            heard: Notify::new(),
            place: RefCell::new(place),
            places,
        })
    }

    /// Ready when the app has said how it speaks, or when the connection is over; whether it can be used.
    pub(super) async fn is_settled(&self) -> bool {
        let mut heard = std::pin::pin!(self.heard.notified());
        poll_fn(|cx| {
            loop {
                if self.allowed.get() > 0 || self.standing.get() != Standing::Open {
                    return Poll::Ready(self.standing.get() == Standing::Open);
                }
                std::task::ready!(heard.as_mut().poll(cx));
                heard.set(self.heard.notified());
            }
        })
        .await
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(super) fn driven_by(&self, waker: &Waker) {
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|driver| driver.will_wake(waker)) {
            *driver = Some(waker.clone());
        }
    }

    pub(super) fn has_streams(&self, allowed: usize) {
        let before = self.allowed.replace(allowed);
        if allowed > before {
            self.places.tell_one();
        }
    }

    pub(super) fn is_heard(&self) {
        self.heard.notify_waiters();
    }

    pub(super) fn take_doubt(&self) -> bool {
        self.doubt.take()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.standing.get() == Standing::Cut
    }

    pub(super) fn is_over(&self) {
        self.standing.set(Standing::Over);
        self.give_place_back();
    }

    /// Those who wait to hear of it.
    pub(super) fn tell_all(&self) {
        self.heard.notify_waiters();
    }

    fn cut(&self) {
        self.standing.set(Standing::Cut);
        self.wake();
    }

    fn wake(&self) {
        if let Some(driver) = &*self.driver.borrow() {
            driver.wake_by_ref();
        }
    }

    fn give_place_back(&self) {
        self.place.take();
    }
}

impl Slot {
    pub(super) fn link(&self) -> &Rc<Link> {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
        self.0.common.places.tell_one();
    }
}
