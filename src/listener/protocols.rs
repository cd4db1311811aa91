//! Which protocol a client speaks, told by its first bytes, and hyper's settings for each. Knows no request.

use std::{
    error::Error as StdError,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
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
use tokio::{io::AsyncWrite, time::Sleep};

use super::{drain::Inside, socket::Watched, spawn};
use crate::{
    config::{Limits, ListenConfig},
    turn,
};

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
            .timer(TurnTimer(TokioTimer::new()))
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .max_concurrent_streams(STREAMS)
            .keep_alive_interval(head_timeout)
            .keep_alive_timeout(head_timeout);
        Self { http1, http2: config.http2.then_some(http2) }
    }

    /// Serves a connection until it is over, or handed over to another protocol. Before it has said anything, and while
    /// it says nothing for long, it costs no parser and no buffers. The stream is in a box: it goes to hyper and back.
    pub(super) async fn serve<S, B>(
        &self,
        mut stream: Box<Watched>,
        service: Rc<S>,
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
        match (first_word(&mut stream, here, self.http2.is_some()).await?, &self.http2) {
            (None, _) => return Ok(()),
            (Some(Speaks::Http2), Some(http2)) => {
                let connection = http2.serve_connection(TokioIo::new(stream), service);
                let tell = |connection: Pin<&mut http2::Connection<_, _, _>>| {
                    connection.graceful_shutdown();
                };
                until(Box::pin(connection), tell, || false, here).await?;
                return Ok(());
            }
            (Some(_), _) => {}
        }
        let flags = stream.flags();
        loop {
            let io = TokioIo::new(stream);
            let connection = self.http1.serve_connection(io, Rc::clone(&service)).with_upgrades();
            let tell = |connection: Pin<&mut http1::UpgradeableConnection<_, _>>| {
                connection.graceful_shutdown();
            };
            let resting = until(Box::pin(connection), tell, || flags.is_resting(), here).await?;
            let parts = resting.and_then(|connection| connection.into_parts());
            let bare = parts.map(|parts| {
                let mut stream = parts.io.into_inner();
                stream.unread(&parts.read_buf);
                stream
            });
            let Some(bare) = bare else {
                flags.hand_over();
                return Ok(());
            };
            stream = bare;
            if !next_word(&mut stream, here).await? {
                // As hyper ends a connection that is idle.
                poll_fn(|cx| Pin::new(&mut stream).poll_shutdown(cx)).await?;
                return Ok(());
            }
        }
    }
}

/// Waits for bytes that tell. None: the drain began, and the client has not spoken for a while. It was accepted, so its
/// first request may have been on the way: it is not let go at once.
async fn first_word(
    stream: &mut Watched,
    here: &Inside,
    offers_http2: bool,
) -> io::Result<Option<Speaks>> {
    let mut goodbye: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        let speaks = if offers_http2 {
            stream.poll_first_word(cx)
        } else {
            stream.poll_any(cx).map_ok(|_| Speaks::Http1)
        };
        if let Poll::Ready(speaks) = speaks {
            return Poll::Ready(speaks.map(Some));
        }
        if !here.poll_begun(cx) {
            return Poll::Pending;
        }
        let goodbye = goodbye.get_or_insert_with(|| Box::pin(tokio::time::sleep(FIRST_WORD)));
        goodbye.as_mut().poll(cx).map(|()| Ok(None))
    })
    .await
}

/// Waits until a connection that rests says something more: what it said before (line ends between requests) was no
/// request. False: it has ended, or ends because the drain began.
async fn next_word(stream: &mut Watched, here: &Inside) -> io::Result<bool> {
    poll_fn(|cx| match stream.poll_more(cx) {
        // What has come by then is still answered.
        Poll::Pending if here.poll_begun(cx) => Poll::Ready(Ok(false)),
        poll => poll,
    })
    .await
}

/// Drives a connection to its end; tells it once when the drain begins. It is given back if it rests before that.
async fn until<C>(
    mut connection: Pin<Box<C>>,
    tell: impl Fn(Pin<&mut C>),
    rests: impl Fn() -> bool,
    here: &Inside,
) -> hyper::Result<Option<C>>
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    let mut told = false;
    let is_over = poll_fn(|cx| {
        // First of all it takes what has come: hyper lets go at once of one that has said nothing yet.
        let ended = connection.as_mut().poll(cx).map_ok(|()| true);
        if ended.is_ready() || told {
            return ended;
        }
        if here.poll_begun(cx) {
            told = true;
            tell(connection.as_mut());
            return connection.as_mut().poll(cx).map_ok(|()| true);
        }
        if rests() { Poll::Ready(Ok(false)) } else { Poll::Pending }
    })
    .await?;
    Ok((!is_over).then(|| *Pin::into_inner(connection)))
}

/// How long a connection that has said nothing may still begin to speak when the drain begins.
const FIRST_WORD: Duration = Duration::from_millis(500);
/// hyper refuses smaller ones.
const SMALLEST_BUFFER: usize = 8192;
/// Fields of a head that hyper takes when nobody says how many.
const HYPERS_OWN_MOST_FIELDS: usize = 100;
/// HTTP/2 streams of one connection at once.
const STREAMS: u32 = 100;

/// hyper asks the clock for each frame of HTTP/2 that comes: it is told once for all that came together.
#[derive(Clone, Debug)]
struct TurnTimer(TokioTimer);

#[expect(clippy::disallowed_types, reason = "hyper's interface has it; it is made from tokio's")]
impl hyper::rt::Timer for TurnTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.0.sleep(duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.0.sleep_until(deadline)
    }

    fn now(&self) -> std::time::Instant {
        turn::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: std::time::Instant) {
        self.0.reset(sleep, deadline);
    }
}

/// Spawns on this worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        // As it is: a block around it would be twice its size, and it is moved.
        spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use filters::request_check::FramingVerdict;
    use http::{Request, Response};
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Notify,
        task::{LocalSet, yield_now},
    };

    use super::{
        super::{
            arrival::ClientStream, drain::Drain, framing::FramingWatch, presence::Presence,
            socket::Socket,
        },
        *,
    };

    const ASK: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    async fn ask(client: &mut TcpStream, bytes: &[u8]) {
        client.write_all(bytes).await.unwrap();
    }

    async fn answer(client: &mut TcpStream) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"well") {
            assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "it was cut");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    }

    /// A little more than what makes a connection rest.
    async fn a_while() {
        tokio::time::pause();
        tokio::time::advance(Duration::from_millis(75)).await;
        tokio::time::resume();
        for _ in 0..10 {
            yield_now().await;
        }
    }

    async fn until(done: impl Fn() -> bool) {
        for _ in 0..100_000 {
            if done() {
                return;
            }
            yield_now().await;
        }
        panic!("it does not come to that");
    }

    #[tokio::test]
    async fn a_quiet_connection_rests_and_one_with_a_request_under_way_does_not() {
        let tasks = LocalSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let presence = Presence::new(listener.accept().await.unwrap().0);
        let (asked, go) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let service = {
            let (asked, go) = (Rc::clone(&asked), Rc::clone(&go));
            Rc::new(service_fn(move |_: Request<Incoming>| {
                let (asked, go) = (Rc::clone(&asked), Rc::clone(&go));
                async move {
                    asked.notify_one();
                    go.notified().await;
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"well"))))
                }
            }))
        };
        // One here, one where it is served, and one that hyper has unless the connection rests.
        let seen = Rc::clone(&service);
        let (at_rest, at_work) = (|| Rc::strong_count(&seen) == 2, || Rc::strong_count(&seen) == 3);
        let drain = Rc::new(Drain::default());
        let here = drain.enter();
        let served = tasks.spawn_local(async move {
            let socket = Socket::new(presence, Duration::from_secs(60), 0);
            let watch = FramingWatch::new(FramingVerdict::default());
            let limit = Duration::from_secs(3600);
            let stream = Box::new(Watched::new(ClientStream::Plain(socket), watch, limit));
            let protocols = Protocols::new(&ListenConfig::default());
            protocols.serve(stream, service, &here).await.map_err(|error| error.to_string())
        });
        tasks
            .run_until(async {
                a_while().await;
                assert!(at_rest(), "before its first byte");
                for _ in 0..3 {
                    ask(&mut client, ASK).await;
                    asked.notified().await;
                    assert!(at_work());
                    a_while().await;
                    a_while().await;
                    assert!(at_work(), "it waits for its answer");
                    go.notify_one();
                    answer(&mut client).await;
                    a_while().await;
                    until(at_rest).await;
                    a_while().await;
                    assert!(at_rest());
                }
                // Half a head is no rest, and what follows it is one request.
                ask(&mut client, &ASK[..10]).await;
                until(at_work).await;
                a_while().await;
                a_while().await;
                assert!(at_work(), "a head is under way");
                ask(&mut client, &ASK[10..]).await;
                asked.notified().await;
                go.notify_one();
                answer(&mut client).await;
                a_while().await;
                until(at_rest).await;
                // What was asked is answered although the drain has begun.
                ask(&mut client, ASK).await;
                go.notify_one();
                asked.notified().await;
                drain.begin();
                answer(&mut client).await;
                assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
                served.await.unwrap().unwrap();
            })
            .await;
    }

    #[tokio::test]
    async fn a_connection_that_rests_ends_with_its_client_and_with_the_drain() {
        for by_drain in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let presence = Presence::new(listener.accept().await.unwrap().0);
            let service = Rc::new(service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"well"))))
            }));
            let seen = Rc::clone(&service);
            let drain = Rc::new(Drain::default());
            let here = drain.enter();
            let tasks = LocalSet::new();
            let served = tasks.spawn_local(async move {
                let socket = Socket::new(presence, Duration::from_secs(60), 0);
                let watch = FramingWatch::new(FramingVerdict::default());
                let limit = Duration::from_secs(3600);
                let stream = Box::new(Watched::new(ClientStream::Plain(socket), watch, limit));
                let protocols = Protocols::new(&ListenConfig::default());
                protocols.serve(stream, service, &here).await.map_err(|error| error.to_string())
            });
            tasks
                .run_until(async {
                    ask(&mut client, ASK).await;
                    answer(&mut client).await;
                    a_while().await;
                    until(|| Rc::strong_count(&seen) == 2).await;
                    if by_drain {
                        drain.begin();
                    } else {
                        client.shutdown().await.unwrap();
                    }
                    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
                    served.await.unwrap().unwrap();
                })
                .await;
        }
    }
}
