//! Pools of egress proxies through which upstreams are reached. Off unless configured; knows neither routes' stand-ins
//! nor the app's answers beyond their status.
//!
//! Who may take which proxy, in one place:
//!
//! 1. `deny` of the route is above all: such a proxy is never taken.
//! 2. `only_for` of the proxy: it belongs to these routes alone. No other route takes it, nor does what has no route
//!    (health questions, requests that no route matches).
//! 3. `only` of the route: it takes these and no others. It does not take them away from others; rule 2 does that.
//! 4. An *active* proxy takes all that. A *draining* one goes on with its sessions only; a *cooling* one takes nothing
//!    until its time is over; a *retired* one is never used again.
//!
//! One request sees one proxy. A session sees one as long as it lives: it ends when it was idle for too long, when its
//! proxy is retired, and, at its next request, while its proxy cools or is not for its route any more.

mod change;
mod handshake;
mod lane;
mod list;
mod member;
mod place;
mod pool;
mod proxy;
mod remembered;
mod ring;
mod rules;
mod sessions;
mod snapshot;

use std::{collections::BTreeMap, sync::Arc};

pub use self::{
    change::{Change, ChangeFault},
    handshake::{OwnWord, Refused, connect, own_word},
    lane::Lane,
    list::{LARGEST_LIST, ListFault, MOST_PROXIES},
    member::{Origin, Said, Standing},
    place::ListPlace,
    pool::{Job, NoWayOut, Permit, Pool, Through},
    proxy::{Credentials, Proxy, ProxyFault, is_name},
    rules::Rule,
    snapshot::{PoolSnapshot, ProxySnapshot, SourceSnapshot},
};
use crate::{
    config::EgressPools,
    store::{Store, StoreError},
};

/// All pools. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pools(Arc<BTreeMap<String, Arc<Pool>>>);

impl Pools {
    /// From a configuration that was checked.
    pub fn new(config: &EgressPools) -> Result<Self, ProxyFault> {
        let pools = config.iter().map(|(name, of)| Ok((name.clone(), Pool::new(name, of)?)));
        Ok(Self(Arc::new(pools.collect::<Result<_, ProxyFault>>()?)))
    }

    /// After a reload: a pool stays as it is, with all that is known of it. What is written of pools holds from the next
    /// start on, and a reload that changes it says so.
    pub fn changed(&self, config: &EgressPools) -> Result<Self, ProxyFault> {
        if self.is_empty() { Self::new(config) } else { Ok(self.clone()) }
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Pool>> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.0.values()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes up what people had changed before the start.
    pub async fn recall(&self, store: &Store) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        for (name, text) in store.recall_all(change::REMEMBERED).await? {
            let pool = name.strip_prefix(change::REMEMBERED).and_then(|name| self.get(name));
            let Some(pool) = pool else { continue };
            match serde_json::from_str(&text) {
                Ok(remembered) => pool.take_up(remembered).await,
                Err(error) => {
                    // Retired proxies would be used again: better no way out than a wrong one.
                    return Err(StoreError::Failed(format!(
                        "what is remembered of egress pool {name}: {error}"
                    )));
                }
            }
        }
        Ok(())
    }
}
