//! Opens a socket to the first of several addresses that takes it: families in turn, the next one a quarter of a second
//! after the last, or at once when that failed (RFC 8305, "Happy Eyeballs").

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::net::TcpStream;

/// RFC 8305, section 5: the time between two attempts.
const STAGGER: Duration = Duration::from_millis(250);

/// The first connection that stands, or the error that says most. `turn` spreads connections over addresses of a family.
pub(super) async fn dial(addresses: &[SocketAddr], turn: usize) -> io::Result<TcpStream> {
    if let [only] = addresses {
        return TcpStream::connect(only).await;
    }
    let mut waiting = in_order(addresses, turn).into_iter();
    let mut trying = FuturesUnordered::new();
    let mut failed: Option<io::Error> = None;
    loop {
        match waiting.next() {
            Some(address) => trying.push(TcpStream::connect(address)),
            None if trying.is_empty() => return Err(failed.unwrap_or_else(no_address)),
            None => {}
        }
        let stagger = async {
            if waiting.len() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(STAGGER).await;
        };
        tokio::select! {
            Some(tried) = trying.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(telling(failed, error)),
            },
            () = stagger => {}
        }
    }
}

/// IPv6 first, then the families in turn; within a family the addresses go round with each connection.
fn in_order(addresses: &[SocketAddr], turn: usize) -> Vec<SocketAddr> {
    let (mut six, mut four): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(SocketAddr::is_ipv6);
    for family in [&mut six, &mut four] {
        if !family.is_empty() {
            let by = turn % family.len();
            family.rotate_left(by);
        }
    }
    let most = six.len().max(four.len());
    (0..most).flat_map(|at| [six.get(at), four.get(at)]).flatten().copied().collect()
}

/// Of two errors the one that says more: trouble of this process first, then what an address itself answered, last that
/// there is no way to it (a machine without IPv6 has none to any such address).
fn telling(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if rank(&before) >= rank(&error) => before,
        _ => error,
    }
}

fn rank(error: &io::Error) -> u8 {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => 2,
        Some(
            Errno::NETUNREACH
            | Errno::ADDRNOTAVAIL
            | Errno::AFNOSUPPORT
            | Errno::ACCESS
            | Errno::PERM,
        ) => 0,
        _ => 1,
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address")
}

/// Trouble of this process or machine: no evidence about the app.
pub(super) fn is_our_own(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let ours = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
        Errno::ACCESS,
        Errno::PERM,
    ];
    error.raw_os_error().is_some_and(|code| ours.iter().any(|errno| errno.raw_os_error() == code))
}

/// The error in words, without the number the system gives it.
pub(super) fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::Instant};

    use super::*;

    fn all(addresses: &[&str]) -> Vec<SocketAddr> {
        addresses.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_addresses_go_round() {
        let addresses = all(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[::1]:1", "[::2]:1"]);
        let first = all(&["[::1]:1", "10.0.0.1:1", "[::2]:1", "10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(in_order(&addresses, 0), first);
        let second = all(&["[::2]:1", "10.0.0.2:1", "[::1]:1", "10.0.0.3:1", "10.0.0.1:1"]);
        assert_eq!(in_order(&addresses, 1), second);
    }

    #[test]
    fn a_refusal_says_more_than_a_missing_way_and_less_than_our_own_trouble() {
        let error = |errno: rustix::io::Errno| io::Error::from(errno);
        let (way, refused, files) = (
            || error(rustix::io::Errno::NETUNREACH),
            || error(rustix::io::Errno::CONNREFUSED),
            || error(rustix::io::Errno::MFILE),
        );
        for (one, other, most) in [
            (way(), refused(), refused()),
            (refused(), way(), refused()),
            (refused(), files(), files()),
            (files(), refused(), files()),
        ] {
            assert_eq!(telling(Some(one), other).raw_os_error(), most.raw_os_error());
        }
    }

    #[tokio::test]
    async fn a_refusal_costs_no_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let there = listener.local_addr().unwrap();
        let began = Instant::now();
        for turn in 0..4 {
            let stream = dial(&[gone, there], turn).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), there);
        }
        assert!(began.elapsed() < STAGGER, "{:?}", began.elapsed());
        assert!(dial(&[gone, gone], 0).await.is_err());
    }

    /// An address whose queue is full swallows connections: the next one is tried beside it.
    #[tokio::test]
    async fn an_address_that_says_nothing_costs_a_quarter_of_a_second() {
        let (full, _kept) = full_queue();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap();
        let both = [full, there];
        let stream = tokio::time::timeout(Duration::from_secs(10), dial(&both, 0)).await;
        assert_eq!(stream.unwrap().unwrap().peer_addr().unwrap(), there);
    }

    /// A listener that accepts nothing, with its queue full.
    fn full_queue() -> (SocketAddr, Vec<socket2::Socket>) {
        let new =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = new();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut kept = vec![listener];
        for _ in 0..4 {
            let client = new();
            client.set_nonblocking(true).unwrap();
            client.connect(&address).ok();
            kept.push(client);
        }
        (address.as_socket().unwrap(), kept)
    }
}
