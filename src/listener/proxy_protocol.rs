//! The PROXY protocol, versions 1 and 2: before anything else, a load balancer says for whom it connects.
//!
//! It is read only from peers that the configuration names, byte for byte and no further, so that what follows (TLS, HTTP)
//! is untouched. What is not well-formed closes the connection. The caller bounds the time.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// What the header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The load balancer's own connection (a health check), or one whose client it does not know.
    Local,
    /// For this client.
    Client {
        address: SocketAddr,
        /// The client speaks TLS with the load balancer.
        over_tls: bool,
    },
}

/// Reads one header of either version from the beginning of a connection.
pub async fn read(stream: &mut TcpStream) -> io::Result<Header> {
    // No header of either version is shorter.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if length > LONGEST_V2 {
            return Err(malformed());
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return v2(fixed[0], fixed[1], &rest).ok_or_else(malformed);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\n") {
        // All that stands before the end of the line is the header's: it may be taken without taking what follows.
        let mut ahead = [0; LONGEST_V1];
        let room = LONGEST_V1 - line.len();
        let seen = stream.peek(&mut ahead[..room]).await?;
        let end = ahead[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |at| at + 1);
        if end == 0 {
            return Err(malformed());
        }
        stream.read_exact(&mut ahead[..end]).await?;
        line.extend_from_slice(&ahead[..end]);
    }
    v1(&line).ok_or_else(malformed)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n`
fn v1(line: &[u8]) -> Option<Header> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix("\r\n")?;
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Header::Local);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source_port, _) = (port(words.next()?)?, port(words.next()?)?);
    let source: IpAddr = match family {
        "TCP4" => {
            destination.parse::<Ipv4Addr>().ok()?;
            source.parse::<Ipv4Addr>().ok()?.into()
        }
        "TCP6" => {
            destination.parse::<Ipv6Addr>().ok()?;
            source.parse::<Ipv6Addr>().ok()?.into()
        }
        _ => return None,
    };
    let address = SocketAddr::new(source, source_port);
    words.next().is_none().then_some(Header::Client { address, over_tls: false })
}

/// Digits only, and no zero before them.
fn port(word: &str) -> Option<u16> {
    let canonical = word == "0" || !word.starts_with('0');
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    (canonical && digits).then(|| word.parse().ok()).flatten()
}

/// What follows the signature: version and command, family and transport, then addresses and more.
fn v2(version_and_command: u8, family: u8, rest: &[u8]) -> Option<Header> {
    match version_and_command {
        0x20 => return Some(Header::Local),
        0x21 => {}
        _ => return None,
    }
    let (address, more): (SocketAddr, &[u8]) = match family {
        TCP_OVER_IPV4 => {
            let (addresses, more) = rest.split_first_chunk::<12>()?;
            let source: [u8; 4] = addresses[..4].try_into().ok()?;
            let port = u16::from_be_bytes([addresses[8], addresses[9]]);
            (SocketAddr::new(Ipv4Addr::from(source).into(), port), more)
        }
        TCP_OVER_IPV6 => {
            let (addresses, more) = rest.split_first_chunk::<36>()?;
            let source: [u8; 16] = addresses[..16].try_into().ok()?;
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            (SocketAddr::new(Ipv6Addr::from(source).into(), port), more)
        }
        // Not a client that HTTP over TCP could have.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Some(Header::Local),
        _ => return None,
    };
    Some(Header::Client { address, over_tls: says_tls(more)? })
}

/// Whether one of the type-length-values says that the client spoke TLS. None where they do not add up.
fn says_tls(mut values: &[u8]) -> Option<bool> {
    let mut over_tls = false;
    while let Some((&[kind, high, low], rest)) = values.split_first_chunk::<3>() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if kind == TYPE_SSL {
            over_tls = value.first().is_some_and(|client| client & CLIENT_SSL != 0);
        }
        values = rest;
    }
    values.is_empty().then_some(over_tls)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header")
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// As the specification has it, with the line's end.
const LONGEST_V1: usize = 107;
/// Addresses and a few hundred bytes of what a load balancer may add.
const LONGEST_V2: usize = 2048;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const TYPE_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    fn client(address: &str, over_tls: bool) -> Option<Header> {
        Some(Header::Client { address: address.parse().unwrap(), over_tls })
    }

    fn of_version_2(family: u8, rest: &[u8]) -> Option<Header> {
        v2(0x21, family, rest)
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xdc, 0x04, 1, 187];

    #[test]
    fn version_1_names_the_client() {
        assert_eq!(
            v1(b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\n"),
            client("192.0.2.7:56324", false)
        );
        assert_eq!(v1(b"PROXY TCP6 2001:db8::1 ::1 4 443\r\n"), client("[2001:db8::1]:4", false));
        assert_eq!(v1(b"PROXY UNKNOWN\r\n"), Some(Header::Local));
        assert_eq!(v1(b"PROXY UNKNOWN ffff:f::f ::1 65535 65535\r\n"), Some(Header::Local));
    }

    #[test]
    fn version_1_is_read_strictly() {
        for line in [
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.7  10.0.0.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.07 10.0.0.1 56324 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 056324 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 +5 443\r\n",
            "PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n",
            "PROXY TCP4 ::1 ::1 1 443\r\n",
            "PROXY TCP6 192.0.2.7 10.0.0.1 1 443\r\n",
            "PROXY UDP4 192.0.2.7 10.0.0.1 1 443\r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.7 10.0.0.1 1 443\r\n",
        ] {
            assert_eq!(v1(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn version_2_names_the_client_and_its_tls() {
        assert_eq!(of_version_2(TCP_OVER_IPV4, &IPV4), client("192.0.2.7:56324", false));
        let with = |more: &[u8]| of_version_2(TCP_OVER_IPV4, &[&IPV4, more].concat());
        // PP2_TYPE_NOOP before PP2_TYPE_SSL with client = PP2_CLIENT_SSL, verify = 0.
        let tls = [0x04, 0, 1, 9, TYPE_SSL, 0, 5, 1, 0, 0, 0, 0];
        assert_eq!(with(&tls), client("192.0.2.7:56324", true));
        assert_eq!(with(&tls[..7]), None, "a value that is cut");
        assert_eq!(with(&[1, 0]), None, "a value without length");
        let mut ipv6 = [0; 36];
        ipv6[15] = 1;
        ipv6[33] = 80;
        assert_eq!(of_version_2(TCP_OVER_IPV6, &ipv6), client("[::1]:80", false));
    }

    #[test]
    fn version_2_without_a_client() {
        assert_eq!(v2(0x20, 0, &[]), Some(Header::Local));
        assert_eq!(of_version_2(0, &[]), Some(Header::Local));
        assert_eq!(of_version_2(0x31, &[0; 216]), Some(Header::Local));
        assert_eq!(of_version_2(TCP_OVER_IPV4, &IPV4[..11]), None);
        assert_eq!(of_version_2(0x13, &IPV4), None);
        assert_eq!(v2(0x22, TCP_OVER_IPV4, &IPV4), None);
        assert_eq!(v2(0x11, TCP_OVER_IPV4, &IPV4), None);
    }

    /// What `read` makes of bytes written in pieces, and what it leaves.
    async fn from_wire(pieces: &[&[u8]]) -> (io::Result<Header>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let write = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let read = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let header = read(&mut stream).await;
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            (header, rest)
        };
        tokio::join!(write, read).1
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left() {
        let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n";
        let mut binary = SIGNATURE.to_vec();
        binary.extend([0x21, TCP_OVER_IPV4, 0, 12]);
        binary.extend(IPV4);
        binary.extend(b"GET / HTTP/1.1\r\n");
        for whole in [&line[..], &binary] {
            let bytes: Vec<&[u8]> = whole.chunks(1).collect();
            for pieces in [vec![whole], bytes, whole.chunks(13).collect()] {
                let (header, rest) = from_wire(&pieces).await;
                assert_eq!(header.ok(), client("192.0.2.7:56324", false));
                assert_eq!(rest, b"GET / HTTP/1.1\r\n");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_or_too_long_is_refused() {
        let endless = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        let mut large = SIGNATURE.to_vec();
        large.extend([0x21, TCP_OVER_IPV4, 0xff, 0xff]);
        for bytes in [&b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n"[..], &endless, &large, b"PROXY "] {
            assert!(from_wire(&[bytes]).await.0.is_err());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            one in any::<u8>(), two in any::<u8>(), bytes in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            v1(&bytes);
            v2(one, two, &bytes);
            of_version_2(TCP_OVER_IPV4, &bytes);
            of_version_2(TCP_OVER_IPV6, &bytes);
        }

        #[test]
        fn every_address_comes_through(source in any::<IpAddr>(), port in any::<u16>()) {
            let (family, other, code) = match source {
                IpAddr::V4(_) => ("TCP4", "0.0.0.0", TCP_OVER_IPV4),
                IpAddr::V6(_) => ("TCP6", "::", TCP_OVER_IPV6),
            };
            let wanted = Some(Header::Client {
                address: SocketAddr::new(source, port), over_tls: false
            });
            let line = format!("PROXY {family} {source} {other} {port} 443\r\n");
            prop_assert_eq!(v1(line.as_bytes()), wanted);
            let mut bytes = match source {
                IpAddr::V4(one) => [one.octets(), [0; 4]].concat(),
                IpAddr::V6(one) => [one.octets(), [0; 16]].concat(),
            };
            bytes.extend(port.to_be_bytes());
            bytes.extend([1, 187]);
            prop_assert_eq!(of_version_2(code, &bytes), wanted);
        }
    }
}
