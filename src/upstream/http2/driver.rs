//! Drives one HTTP/2 connection for all who have a stream on it, and asks by ping whether the app is still there. It ends
//! with the connection; nobody waits for it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use h2::{Ping, client};
use tokio::time::{Instant, Sleep, sleep};

use super::{link::Common, wire::Wire};
use crate::upstream::Stream;

type Connection = client::Connection<Wire<Stream>, Bytes>;

/// When the app is asked whether it is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pings {
    /// After this silence; none: only when somebody doubts.
    pub(super) after: Option<Duration>,
    /// Longest time until anything comes.
    pub(super) within: Duration,
}

/// Starts the task of a connection.
#[expect(
    clippy::disallowed_methods,
    reason = "ends with its connection, which ends with the last who uses it"
)]
pub(super) fn start(connection: Connection, common: Rc<Common>, pings: Pings) {
    tokio::task::spawn_local(drive(connection, common, pings));
}

async fn drive(connection: Connection, common: Rc<Common>, pings: Pings) {
    let mut driver = Driver::new(connection, pings);
    let mut timer = pin!(sleep(pings.within));
    poll_fn(|cx| {
        common.driven_by(cx.waker());
        driver.poll(&common, timer.as_mut(), cx)
    })
    .await;
    // The streams are told by the connection's end, and must find it over.
    common.is_over();
    drop(driver);
    common.tell_all();
}

struct Driver {
    connection: Connection,
    pong: Option<h2::PingPong>,
    pings: Pings,
    /// How much had come when somebody looked last.
    read: u64,
    asked: Option<Instant>,
}

impl Driver {
    fn new(mut connection: Connection, pings: Pings) -> Self {
        let pong = connection.ping_pong();
        Self { connection, pong, pings, read: 0, asked: None }
    }

    /// Ready when the connection is over.
    fn poll(
        &mut self,
        common: &Common,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            if common.is_cut() || Pin::new(&mut self.connection).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            self.look(common, cx);
            let now = Instant::now();
            let asked = self.asked;
            if asked.is_some_and(|asked| now >= asked + self.pings.within) {
                return Poll::Ready(());
            }
            let silent = self.pings.after.map(|after| common.traffic().heard_at() + after);
            if asked.is_none()
                && (common.take_doubt() || silent.is_some_and(|silent| now >= silent))
            {
                self.ask(now);
                // Once more, so that the ping leaves.
                continue;
            }
            let next = asked.map(|asked| asked + self.pings.within).or(silent);
            let Some(next) = next else { return Poll::Pending };
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// What has come of it.
    fn look(&mut self, common: &Common, cx: &mut Context<'_>) {
        common.has_streams(self.connection.max_concurrent_send_streams());
        let read = common.traffic().read();
        if read != self.read {
            // Whatever came: it is there.
            (self.read, self.asked) = (read, None);
            common.is_heard();
        }
        if let Some(pong) = &mut self.pong {
            // Only so that the next ping can be sent.
            let _ = pong.poll_pong(cx);
        }
    }

    fn ask(&mut self, now: Instant) {
        self.asked = Some(now);
        if let Some(pong) = &mut self.pong {
            // One that is under way already is as good.
            pong.send_ping(Ping::opaque()).ok();
        }
    }
}
