//! Clients that half-close, reset or drip, and what of theirs is stored.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};

use super::wire::Wire;
use crate::support::Standin;

/// How a client behaves. The first five send a whole request, the others never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Sends all, says that it has said all, and waits for its answer.
    HalfClose,
    HalfCloseChunked,
    /// Sends all in small pieces.
    Drip,
    /// Sends all and resets before the answer.
    ResetAfter,
    /// Sends all and closes before the answer.
    CloseAfter,
    HalfCloseWithin,
    HalfCloseBeforeLastChunk,
    ResetWithin,
    CloseWithinHead,
    /// Sends a piece and nothing more.
    Stall,
}

const MANNERS: [Manner; 10] = [
    Manner::HalfClose,
    Manner::HalfCloseChunked,
    Manner::Drip,
    Manner::ResetAfter,
    Manner::CloseAfter,
    Manner::HalfCloseWithin,
    Manner::HalfCloseBeforeLastChunk,
    Manner::ResetWithin,
    Manner::CloseWithinHead,
    Manner::Stall,
];

impl Manner {
    fn sends_all(self) -> bool {
        MANNERS.iter().position(|manner| *manner == self) < Some(5)
    }

    fn waits(self) -> bool {
        matches!(self, Self::HalfClose | Self::HalfCloseChunked | Self::Drip)
    }
}

/// An entry as the admin API lists it.
#[derive(Debug, serde::Deserialize)]
pub struct Stored {
    pub receipt: String,
    pub target: String,
}

#[derive(serde::Deserialize)]
struct Page {
    entries: Vec<Stored>,
    next: Option<i64>,
}

/// All entries there are.
pub async fn stored(standin: &Standin) -> Vec<Stored> {
    let mut all = Vec::new();
    let mut before = String::new();
    loop {
        let answer = standin.admin_get(&format!("/api/v1/entries?limit=100{before}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let page: Page = serde_json::from_value(answer.json()).unwrap();
        all.extend(page.entries);
        match page.next {
            Some(next) => before = format!("&before={next}"),
            None => return all,
        }
    }
}

/// Every acknowledged request is stored, once and byte for byte; no incomplete one is.
pub async fn leave(standin: &Standin, number: usize) {
    let address = standin.address();
    let clients = (0..number).map(|n| async move {
        let manner = MANNERS[n % MANNERS.len()];
        (n, manner, behave(address, n, manner).await)
    });
    let outcomes: Vec<(usize, Manner, bool)> =
        stream::iter(clients).buffer_unordered(100).collect().await;

    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in stored(standin).await {
        entries.entry(entry.target).or_default().push(entry.receipt);
    }
    let mut acknowledged = 0;
    for (n, manner, is_acknowledged) in outcomes {
        let receipts = entries.remove(&target(n)).unwrap_or_default();
        assert!(receipts.len() <= 1, "client {n} ({manner:?}) is stored {} times", receipts.len());
        assert!(manner.sends_all() || receipts.is_empty(), "client {n} ({manner:?}) is stored");
        assert!(is_acknowledged || !manner.waits(), "client {n} ({manner:?}) got no answer");
        if is_acknowledged {
            acknowledged += 1;
            let [receipt] = &receipts[..] else { panic!("client {n} ({manner:?}) is not stored") };
            let kept = standin.admin_get(&format!("/api/v1/entries/{receipt}/request")).await;
            assert_eq!(kept.body, body(n), "client {n} ({manner:?})");
        }
    }
    assert!(entries.is_empty(), "stored, but nobody's: {entries:?}");
    assert_eq!(acknowledged, number * 3 / MANNERS.len(), "those that waited");
}

fn target(n: usize) -> String {
    format!("/orders/client-{n}")
}

fn body(n: usize) -> String {
    format!("order {n} of {}", "x".repeat(n % 500))
}

/// Whether it was acknowledged.
async fn behave(address: SocketAddr, n: usize, manner: Manner) -> bool {
    let body = body(n);
    let chunked = matches!(manner, Manner::HalfCloseChunked | Manner::HalfCloseBeforeLastChunk);
    let framing = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", body.len())
    };
    let head = format!("POST {} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n", target(n));
    let whole = match chunked {
        true => format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        false => format!("{head}{body}"),
    };
    let mut wire = Wire::to(address).await;
    match manner {
        Manner::HalfClose | Manner::HalfCloseChunked => {
            wire.send(&whole).await;
            wire.half_close().await;
        }
        Manner::Drip => {
            for piece in whole.as_bytes().chunks(whole.len() / 20 + 1) {
                wire.send(piece).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Manner::ResetAfter => {
            wire.send(&whole).await;
            if n % 20 < 10 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            wire.reset();
            return false;
        }
        Manner::CloseAfter => {
            wire.send(&whole).await;
            return false;
        }
        Manner::HalfCloseWithin => {
            wire.send(&whole[..whole.len() - 1]).await;
            wire.half_close().await;
        }
        Manner::HalfCloseBeforeLastChunk => {
            wire.send(&whole[..whole.len() - "0\r\n\r\n".len()]).await;
            wire.half_close().await;
        }
        Manner::ResetWithin => {
            wire.send(&whole[..whole.len() - 1]).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
            wire.reset();
            return false;
        }
        Manner::CloseWithinHead => {
            wire.send(&head[..head.len() - 1]).await;
            return false;
        }
        Manner::Stall => wire.send(&whole[..whole.len() - 1]).await,
    }
    match wire.reply(false).await {
        Ok(reply) => {
            let is_acknowledged = (200..300).contains(&reply.status);
            assert!(!is_acknowledged || reply.text().contains("stood_in"), "{reply:?}");
            is_acknowledged
        }
        Err(_) => false,
    }
}
