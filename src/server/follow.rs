//! Follows the lists of the egress pools: reads each at its interval and hands it to its pool, whole. A list that
//! cannot be read changes nothing.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{Request, StatusCode, header};

use crate::{
    config::{BreakerConfig, Http2, UpstreamConfig},
    egress::{LARGEST_LIST, ListPlace, Pool, Pools},
    store::Store,
    upstream::{Asking, Connections, Upstream, body_copy::WholeBody},
};

/// Reads every list once before requests come, so that there are ways out from the start.
pub(super) async fn first(pools: &Pools, store: &Store) {
    for pool in pools.iter() {
        if let Some(list) = List::of(pool) {
            list.look(pool, store).await;
        }
    }
}

/// Reads every list again and again. Never ends by itself.
pub(super) async fn all(pools: &Pools, store: &Store) {
    futures_util::future::join_all(pools.iter().map(|pool| follow(pool, store))).await;
    std::future::pending().await
}

async fn follow(pool: &Pool, store: &Store) {
    let Some(list) = List::of(pool) else { return };
    loop {
        tokio::time::sleep(pool.config.sync_every).await;
        list.look(pool, store).await;
    }
}

enum List {
    File(PathBuf),
    Http { from: Connections, host: String, target: http::uri::PathAndQuery },
}

impl List {
    fn of(pool: &Pool) -> Option<Self> {
        match pool.config.source.as_deref()?.parse().ok()? {
            ListPlace::File(path) => Some(Self::File(path)),
            ListPlace::At { is_https, authority, target } => {
                let scheme = if is_https { "https" } else { "http" };
                let config = UpstreamConfig {
                    endpoints: vec![format!("{scheme}://{authority}")],
                    timeout: LONGEST_WAIT,
                    // A question now and then needs no connection that stays.
                    http2: Http2::Never,
                    // Each look tells for itself how it went.
                    breaker: BreakerConfig { failures: u32::MAX, ..BreakerConfig::default() },
                    ..UpstreamConfig::default()
                };
                let name = format!("list of egress pool {}", pool.name);
                let from = Connections::new(Upstream::new(&name, config));
                Some(Self::Http { from, host: authority.to_string(), target })
            }
        }
    }

    async fn look(&self, pool: &Pool, store: &Store) {
        let bytes = match self {
            Self::File(path) => read_file(path.clone()).await,
            Self::Http { from, host, target } => fetch(from, host, target).await,
        };
        if let Err(fault) = pool.follow(store, bytes).await {
            tracing::warn!(
                pool = &*pool.name,
                fault,
                "the list of egress proxies is refused: nothing changes"
            );
        }
    }
}

async fn read_file(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(move || bounded(&path));
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// One byte more than allowed tells that there is too much.
fn bounded(path: &Path) -> Result<Vec<u8>, String> {
    let unread = |error| format!("cannot read {}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unread)?;
    file.take(LARGEST_LIST as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    Ok(bytes)
}

async fn fetch(
    from: &Connections,
    host: &str,
    target: &http::uri::PathAndQuery,
) -> Result<Vec<u8>, String> {
    let request = Request::get(target.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, "standin-egress")
        .body(WholeBody::default())
        .map_err(|error| error.to_string())?;
    let nobody = from.upstream().of_route(&"".into());
    let asking = Asking { route: &nobody, timeout: LONGEST_WAIT };
    let whole = from.exchange_whole(request, asking, LARGEST_LIST + 1);
    let answer = tokio::time::timeout(2 * LONGEST_WAIT, whole).await;
    let answer = answer.map_err(|_| "it does not come to an end".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status {
        // Without either a list that was cut off looks like a shorter one.
        StatusCode::OK if !ENDS.iter().any(|name| answer.headers.contains_key(name)) => {
            Err("its length is not told: a part cannot be told from the whole".to_owned())
        }
        StatusCode::OK => Ok(answer.body.into()),
        status => Err(format!("it answered {}", status.as_u16())),
    }
}

/// One of these says where a list ends.
const ENDS: [header::HeaderName; 2] = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
/// Longest time for the head of a list.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
