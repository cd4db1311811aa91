//! An app played by hand: each request goes to the test, which answers byte by byte, or does not.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    task::JoinSet,
    time::timeout,
};

use super::Raw;

/// See the module. standin's own questions whether the app is there are answered by themselves.
pub struct Stage {
    address: SocketAddr,
    asked: UnboundedReceiver<Asked>,
    _accepting: JoinSet<()>,
}

/// A request of which the head has come, and its connection.
pub struct Asked {
    pub head: String,
    pub raw: Raw,
}

const LIMIT: Duration = Duration::from_secs(20);

impl Stage {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_test, asked) = mpsc::unbounded_channel();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                connections.spawn(until_asked(Raw { stream }, to_test.clone()));
            }
        });
        Self { address, asked, _accepting: accepting }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request.
    pub async fn asked(&mut self) -> Asked {
        let asked = timeout(LIMIT, self.asked.recv()).await;
        asked.expect("nothing is asked of the app").unwrap()
    }

    /// Whether no other request has come so far.
    pub fn is_left_alone(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }
}

async fn until_asked(mut raw: Raw, to_test: UnboundedSender<Asked>) {
    while let Some(head) = raw.read_until("\r\n\r\n", Duration::from_secs(600)).await {
        if !head.contains("standin-health") {
            let _ = to_test.send(Asked { head, raw });
            return;
        }
        raw.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
}

impl Asked {
    /// A field of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut named = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.trim())
    }

    /// The body of a request with a length.
    pub async fn body(&mut self) -> String {
        let length = self.header("content-length").map_or(0, |length| length.parse().unwrap());
        self.bytes(length).await
    }

    /// So many bytes of the body.
    pub async fn bytes(&mut self, length: usize) -> String {
        let mut body = vec![0; length];
        let read = timeout(LIMIT, self.raw.stream.read_exact(&mut body)).await;
        read.expect("the body does not come").expect("the body broke off");
        String::from_utf8(body).unwrap()
    }

    /// What comes next on the connection, up to `end`.
    pub async fn until(&mut self, end: &str) -> String {
        self.raw.read_until(end, LIMIT).await.unwrap_or_else(|| panic!("{end:?} does not come"))
    }

    pub async fn answer(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.raw.write(bytes).await, "standin left");
    }
}
