//! Which protocol a client speaks, told by its first bytes, and hyper's settings for each. Knows no request.

use std::{
    error::Error as StdError,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http_body::Body;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::{drain::Inside, socket::Watched, spawn};
use crate::config::{Limits, ListenConfig};

/// The settings of one worker's connections.
pub(super) struct Protocols {
    http1: http1::Builder,
    /// None: not offered.
    http2: Option<http2::Builder<LocalExecutor>>,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Http1,
    Http2,
}

impl Protocols {
    pub(super) fn new(config: &ListenConfig) -> Self {
        let Limits { head, headers, head_timeout, .. } = config.limits;
        let head = usize::try_from(head).unwrap_or(usize::MAX);
        let mut http1 = http1::Builder::new();
        http1
            // The socket watches the time of a head: hyper would make a timer for each.
            .header_read_timeout(None)
            // A client that half-closes has asked and waits for its answer.
            .half_close(true)
            .max_buf_size(head.max(SMALLEST_BUFFER));
        if headers != HYPERS_OWN_MOST_FIELDS {
            // Said aloud, it makes hyper fill two lists of that length for each request.
            http1.max_headers(headers);
        }
        let mut http2 = http2::Builder::new(LocalExecutor);
        http2
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(head_timeout)
            .keep_alive_timeout(head_timeout);
        Self { http1, http2: config.http2.then_some(http2) }
    }

    /// Serves a connection until it is over, or handed over to another protocol.
    pub(super) async fn serve<S, B>(
        &self,
        mut stream: Watched,
        service: S,
        here: &Inside,
    ) -> Result<(), Box<dyn StdError + Send + Sync>>
    where
        S: Service<http::Request<Incoming>, Response = http::Response<B>>,
        S::Future: 'static,
        S::Error: Into<Box<dyn StdError + Send + Sync>>,
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
        S: 'static,
    {
        let speaks = match &self.http2 {
            Some(_) => first_word(&mut stream, here).await?,
            None => Some(Speaks::Http1),
        };
        match (speaks, &self.http2) {
            (None, _) => {}
            (Some(Speaks::Http2), Some(http2)) => {
                let connection = http2.serve_connection(TokioIo::new(stream), service);
                until_over(connection, |connection| connection.graceful_shutdown(), here).await?;
            }
            (Some(_), _) => {
                let handed_over = stream.handed_over();
                let connection = self.http1.serve_connection(TokioIo::new(stream), service);
                let connection = connection.with_upgrades();
                until_over(connection, |connection| connection.graceful_shutdown(), here).await?;
                handed_over.set();
            }
        }
        Ok(())
    }
}

/// Waits for bytes that tell. None: the drain began, and the client has not spoken for a while. It was accepted, so its
/// first request may have been on the way: it is not let go at once.
async fn first_word(stream: &mut Watched, here: &Inside) -> io::Result<Option<Speaks>> {
    let mut goodbye = pin!(async {
        poll_fn(|cx| if here.poll_begun(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
        tokio::time::sleep(FIRST_WORD).await;
    });
    poll_fn(|cx| match stream.poll_first_word(cx) {
        Poll::Ready(speaks) => Poll::Ready(speaks.map(Some)),
        Poll::Pending => goodbye.as_mut().poll(cx).map(|()| Ok(None)),
    })
    .await
}

/// Drives a connection to its end; tells it once when the drain begins.
async fn until_over<C>(
    connection: C,
    tell: impl Fn(Pin<&mut C>),
    here: &Inside,
) -> hyper::Result<()>
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    let mut told = false;
    poll_fn(|cx| {
        // First of all it takes what has come: hyper lets go at once of one that has said nothing yet.
        let ended = connection.as_mut().poll(cx);
        if ended.is_ready() || told || !here.poll_begun(cx) {
            return ended;
        }
        told = true;
        tell(connection.as_mut());
        connection.as_mut().poll(cx)
    })
    .await
}

/// How long a connection that has said nothing may still begin to speak when the drain begins.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// hyper refuses smaller ones.
const SMALLEST_BUFFER: usize = 8192;
/// Fields of a head that hyper takes when nobody says how many.
const HYPERS_OWN_MOST_FIELDS: usize = 100;
/// HTTP/2 streams of one connection at once.
const STREAMS: u32 = 100;

/// Spawns on this worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn(async move {
            future.await;
        });
    }
}
