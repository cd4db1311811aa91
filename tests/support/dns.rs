//! A name server of the test's own, over UDP: answers A and AAAA from a table that the test may change.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinSet};

/// See the module.
pub struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    ttl: AtomicU32,
    asked: AtomicUsize,
}

impl Dns {
    /// Its answers are good for `ttl` seconds.
    pub async fn start(ttl: u32) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared { ttl: AtomicU32::new(ttl), ..Shared::default() });
        let mut serving = JoinSet::new();
        serving.spawn(serve(socket, Arc::clone(&shared)));
        Self { address, shared, _serving: serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on the name leads there; to nowhere, and it is said not to exist.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        self.shared.names.lock().unwrap().insert(name.to_owned(), addresses.to_vec());
    }

    pub fn set_ttl(&self, seconds: u32) {
        self.shared.ttl.store(seconds, Ordering::Relaxed);
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut packet = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet).await else { continue };
        if let Some(answer) = shared.answer(&packet[..length]) {
            socket.send_to(&answer, from).await.ok();
        }
    }
}

const A: u16 = 1;
const AAAA: u16 = 28;

impl Shared {
    /// RFC 1035, section 4: header, the question again, answers whose name points at it.
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (name, end) = read_name(query, 12)?;
        let kind = u16::from_be_bytes(query.get(end..end + 2)?.try_into().ok()?);
        let names = self.names.lock().unwrap();
        let addresses = names.get(name.to_ascii_lowercase().as_str()).filter(|all| !all.is_empty());
        let found: Vec<&IpAddr> = addresses
            .into_iter()
            .flatten()
            .filter(|ip| if kind == A { ip.is_ipv4() } else { kind == AAAA && ip.is_ipv6() })
            .collect();
        let code = if addresses.is_some() { 0 } else { 3 };
        let mut answer = query[..2].to_vec();
        answer.extend_from_slice(&[0x84, code]);
        for count in [1, found.len() as u16, 0, 0] {
            answer.extend_from_slice(&count.to_be_bytes());
        }
        answer.extend_from_slice(&query[12..end + 4]);
        for ip in found {
            let bytes = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            answer.extend_from_slice(&[0xC0, 12]);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&1_u16.to_be_bytes());
            answer.extend_from_slice(&self.ttl.load(Ordering::Relaxed).to_be_bytes());
            answer.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            answer.extend_from_slice(&bytes);
        }
        Some(answer)
    }
}

/// A name without its last dot, and where it ends. Questions are not compressed.
fn read_name(packet: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).into_owned());
        at += length;
    }
}
