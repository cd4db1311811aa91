//! What people changed in a pool: kept in the store as one small value, so that it holds after a restart.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    member::{Origin, Said},
    pool::Pool,
    proxy::Proxy,
    ring::Ring,
};
use crate::time::UnixMillis;

/// See the module. By the names of the proxies.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Remembered {
    pub(super) added: BTreeMap<String, Added>,
    pub(super) retired: BTreeMap<String, Said>,
    pub(super) draining: BTreeMap<String, Said>,
    pub(super) cooling: BTreeMap<String, Rest>,
}

/// A proxy that a person added: with its credentials, in a file that only its owner can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Added {
    pub(super) url: String,
    pub(super) only_for: Vec<String>,
    pub(super) said: Said,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rest {
    pub(super) until: UnixMillis,
    pub(super) said: Said,
}

impl Remembered {
    /// Nothing is said of this name any more but, perhaps, that it was added.
    pub(super) fn forget_states(&mut self, name: &str) -> bool {
        let was = self.draining.remove(name).is_some();
        self.cooling.remove(name).is_some() || was
    }

    /// What was said of a name holds for its member.
    pub(super) fn apply_to(&self, ring: &mut Ring, name: &str) {
        let Some(member) = ring.named(name) else { return };
        if let Some(said) = self.draining.get(name) {
            member.draining = Some(said.clone());
        }
        let rest = self.cooling.get(name).map(|rest| (rest, rest.until.since(UnixMillis::now())));
        if let Some((rest, left)) = rest.filter(|(_, left)| *left > Duration::ZERO) {
            member.cool(left, rest.said.clone(), Instant::now());
        }
    }
}

impl Pool {
    /// Takes up what people had changed before the start.
    pub(super) async fn take_up(&self, remembered: Remembered) {
        let mut now = self.remembered.lock().await;
        let mut ring = self.ring();
        for (name, added) in &remembered.added {
            match Proxy::parse(&added.url, &self.credentials, &added.only_for) {
                Ok(proxy) => {
                    if ring.named(name).is_some() {
                        // A person's word is above the configuration's.
                        ring.retire(name, added.said.clone(), false);
                    }
                    ring.add(proxy, Origin::Added);
                }
                Err(fault) => {
                    tracing::error!(pool = &*self.name, %fault, "a remembered proxy cannot be used")
                }
            }
        }
        for (name, said) in &remembered.retired {
            ring.retire(name, said.clone(), true);
        }
        for name in remembered.draining.keys().chain(remembered.cooling.keys()) {
            remembered.apply_to(&mut ring, name);
        }
        drop(ring);
        *now = remembered;
    }
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered")
            .field("added", &self.added.keys())
            .field("retired", &self.retired.keys())
            .field("draining", &self.draining.keys())
            .field("cooling", &self.cooling.keys())
            .finish()
    }
}
