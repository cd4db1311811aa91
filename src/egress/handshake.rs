//! What is said to a proxy itself: the tunnel that is asked for (CONNECT), and whether an answer is the proxy's own.

use std::io;

use http::{HeaderMap, StatusCode, header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::proxy::Proxy;

/// Why there is no tunnel. Nothing of the request was sent.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it answered {0} to CONNECT")]
    Status(u16),
    #[error("its answer to CONNECT is no HTTP")]
    NotHttp,
}

/// Asks for a tunnel to `authority` over a fresh connection to the proxy (RFC 9110, 9.3.6). After `Ok` the stream leads
/// to the app.
pub async fn connect<S>(stream: &mut S, proxy: &Proxy, authority: &str) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(authorization) = proxy.authorization() {
        ask.extend_from_slice(b"Proxy-Authorization: ");
        ask.extend_from_slice(authorization.as_bytes());
        ask.extend_from_slice(b"\r\n");
    }
    ask.extend_from_slice(b"\r\n");
    stream.write_all(&ask).await?;
    stream.flush().await?;
    loop {
        match status(&head(stream).await?).ok_or(Refused::NotHttp)? {
            200..=299 => return Ok(()),
            100..=199 => {} // an interim answer
            refused => return Err(Refused::Status(refused)),
        }
    }
}

/// The head of one answer. What stands behind it may be the app's already, so no byte more is read.
async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Refused> {
    let mut head = Vec::with_capacity(128);
    while !head.ends_with(b"\r\n\r\n") && !head.ends_with(b"\n\n") {
        if head.len() >= LARGEST_HEAD {
            return Err(Refused::NotHttp);
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let code = line.strip_prefix(['0', '1'])?.strip_prefix(' ')?.get(..3)?;
    code.parse().ok().filter(|code| (100..600).contains(code))
}

/// What a proxy says for itself of a request that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnWord {
    /// It passes nothing on for us: the app certainly has nothing.
    NotForUs,
    /// It could not get an answer of the app. Whether the app has the request is not known.
    NotReached,
}

/// The proxy's own word, if the answer is not one that it passed on.
pub fn own_word(status: StatusCode, headers: &HeaderMap) -> Option<OwnWord> {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        return Some(OwnWord::NotForUs); // RFC 9110, 15.5.8: nobody else may say so
    }
    // What was passed on has been marked by the proxy (RFC 9110, 7.6.3); what it says itself has not.
    let server = headers.get(header::SERVER).and_then(|server| server.to_str().ok());
    let names_a_proxy = server.is_some_and(|server| {
        let server = server.to_ascii_lowercase();
        PROXIES.iter().any(|name| server.starts_with(name))
    });
    let is_own = headers.contains_key("x-squid-error")
        || names_a_proxy && !headers.contains_key(header::VIA);
    match status.as_u16() {
        // Who may use it is asked before anything is passed on.
        401 | 403 if is_own => Some(OwnWord::NotForUs),
        400.. if is_own => Some(OwnWord::NotReached),
        _ => None,
    }
}

/// Programs that are proxies and nothing else, as `Server` names them.
const PROXIES: [&str; 4] = ["tinyproxy", "squid", "privoxy", "3proxy"];
/// Most bytes of an answer to CONNECT.
const LARGEST_HEAD: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tokio::io::duplex;

    use super::{super::proxy::Credentials, *};

    async fn asked(answer: &'static [u8]) -> (Result<(), Refused>, String, Vec<u8>) {
        let proxy =
            Proxy::parse("http://anna:pw@10.0.0.9:3128", &Credentials::default(), &[]).unwrap();
        let (mut ours, mut theirs) = duplex(64 << 10);
        let peer = async {
            let head = head(&mut theirs).await.unwrap();
            theirs.write_all(answer).await.unwrap();
            theirs.shutdown().await.unwrap();
            String::from_utf8(head).unwrap()
        };
        let (result, asked) = tokio::join!(connect(&mut ours, &proxy, "app:443"), peer);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        (result, asked, rest)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_who_we_are_and_nothing_behind_the_head_is_lost() {
        let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 Connection established\r\nVia: x\r\n\r\nHELLO";
        let (result, asked, rest) = asked(answer).await;
        result.unwrap();
        assert_eq!(
            asked,
            "CONNECT app:443 HTTP/1.1\r\nHost: app:443\r\nProxy-Authorization: Basic YW5uYTpwdw==\r\n\r\n"
        );
        assert_eq!(rest, b"HELLO");
    }

    #[tokio::test]
    async fn a_refusal_says_which() {
        for status in [403, 407, 500, 502] {
            let answer =
                format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").leak().as_bytes();
            assert!(matches!(asked(answer).await.0, Err(Refused::Status(told)) if told == status));
        }
        for answer in
            [&b"SSH-2.0-OpenSSH\r\n\r\n"[..], b"HTTP/1.1 2\r\n\r\n", b"HTTP/1.1 999 x\r\n\r\n"]
        {
            assert!(matches!(asked(answer).await.0, Err(Refused::NotHttp)), "{answer:?}");
        }
        for answer in [&b""[..], b"HTTP/1.1 200 OK\r\n"] {
            assert!(matches!(asked(answer).await.0, Err(Refused::Io(_))), "{answer:?}");
        }
        let endless = vec![b'x'; LARGEST_HEAD + 1].leak();
        assert!(matches!(asked(endless).await.0, Err(Refused::NotHttp)));
    }

    #[test]
    fn a_proxys_own_answer_is_known_from_the_apps() {
        let word = |status: u16, fields: &[(&'static str, &'static str)]| {
            let fields = fields.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), HeaderValue::from_static(value))
            });
            own_word(StatusCode::from_u16(status).unwrap(), &fields.collect())
        };
        let tinyproxy = ("server", "tinyproxy/1.11.1");
        assert_eq!(word(407, &[]), Some(OwnWord::NotForUs));
        assert_eq!(word(401, &[tinyproxy]), Some(OwnWord::NotForUs));
        assert_eq!(word(500, &[tinyproxy]), Some(OwnWord::NotReached));
        let squid = [("x-squid-error", "ERR_CONNECT_FAIL 111"), ("via", "1.1 cache (squid/6)")];
        assert_eq!(word(503, &squid), Some(OwnWord::NotReached));
        // Passed on: the app's own word.
        let via = ("via", "1.1 tinyproxy (tinyproxy/1.11.1)");
        assert_eq!(word(502, &[("server", "nginx"), via]), None);
        assert_eq!(word(403, &[tinyproxy, via]), None);
        assert_eq!(word(502, &[("server", "nginx")]), None);
        assert_eq!(word(200, &[tinyproxy]), None);
    }
}
