//! What people, and the list that is followed, change in a pool. One at a time; a person's word is durable and audited
//! before it acts.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    list::{self, ListFault},
    member::{Origin, Said},
    pool::{Followed, Pool},
    proxy::{Proxy, ProxyFault, is_name},
    remembered::{Added, Remembered, Rest},
};
use crate::{
    store::{AuditLine, Store, StoreError},
    time::UnixMillis,
};

/// What a person wants of a proxy.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// Finish its sessions, take nothing new.
    Drain,
    /// Never be used again.
    Retire,
    /// Take its turn again: neither draining nor cooling.
    Activate,
    /// Rest for a time.
    Cool(Duration),
    /// Come into the pool, as a new member, even where one of the name was retired.
    Add { url: String, only_for: Vec<String> },
}

/// Why a change was not made. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeFault {
    #[error("there is no such proxy")]
    NoSuch,
    #[error("it was retired, for good: add it, and it comes back as a new one")]
    Retired,
    #[error("there is one of that name already")]
    Exists,
    #[error("it is not the one it was: it left and came back since")]
    Another,
    #[error(transparent)]
    Proxy(#[from] ProxyFault),
    #[error("the pool keeps {0} of these at most")]
    Full(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Pool {
    /// Does what a person says; `name` is ignored for [`Change::Add`]. `generation`: refused unless the proxy is still
    /// the one that had it. Gives the name of the proxy.
    pub async fn change(
        &self,
        store: &Store,
        name: &str,
        generation: Option<u64>,
        change: Change,
        who: &str,
        why: &str,
    ) -> Result<String, ChangeFault> {
        let remembered = self.remembered.lock().await;
        let said = Said { by: who.to_owned(), why: why.to_owned(), at: UnixMillis::now() };
        let added = match &change {
            Change::Add { url, only_for } => Some(Proxy::parse(url, &self.credentials, only_for)?),
            _ => None,
        };
        let name = added.as_ref().map_or_else(|| name.to_owned(), |proxy| proxy.name.to_string());
        self.may_be_changed(&name, generation, &change)?;
        let next = remembered.after(&name, &change, &said)?;
        let line = AuditLine {
            at: said.at,
            who: who.to_owned(),
            what: format!("egress {}", change.word()),
            on: format!("{} {name}", self.name),
            why: why.to_owned(),
        };
        let text = serde_json::to_string(&next).unwrap_or_default();
        let mut act =
            Act { pool: self, remembered, next, name, change, added, said, is_written: true };
        // Once it is on its way it is written, even if whoever asked for it leaves: then it acts, too.
        if let Err(error) = store.decree(&self.key(), &text, line).await {
            act.is_written = false;
            if matches!(error, StoreError::Failed(_)) {
                tracing::error!(pool = &*self.name, %error, "a failed change of a pool may act after a restart");
            }
            return Err(error.into());
        }
        Ok(act.name.clone())
    }

    fn may_be_changed(
        &self,
        name: &str,
        generation: Option<u64>,
        change: &Change,
    ) -> Result<(), ChangeFault> {
        let mut ring = self.ring();
        let is_retired = ring.retired().contains_key(name);
        let adds = matches!(change, Change::Add { .. });
        if adds && ring.members().len() >= 2 * list::MOST_PROXIES {
            return Err(ChangeFault::Full(2 * list::MOST_PROXIES));
        }
        match ring.named(name) {
            Some(_) if adds => Err(ChangeFault::Exists),
            Some(member) if generation.is_some_and(|known| known != member.id) => {
                Err(ChangeFault::Another)
            }
            Some(_) => Ok(()),
            None if adds => Ok(()),
            None if is_retired => Err(ChangeFault::Retired),
            None => Err(ChangeFault::NoSuch),
        }
    }

    /// The list that is followed, as it was read: taken whole, or refused whole. Lists come one after the other.
    pub async fn follow(
        &self,
        store: &Store,
        bytes: Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        let read = bytes.and_then(|bytes| {
            list::read(&bytes, &self.credentials).map_err(|fault: ListFault| fault.to_string())
        });
        let list = match read {
            Ok(list) => list,
            Err(fault) => {
                self.followed().fault = Some(fault.clone());
                return Err(fault);
            }
        };
        let listed = list.len();
        let mut remembered = self.remembered.lock().await;
        let synced = self.sync(list);
        {
            let mut ring = self.ring();
            synced.added.iter().for_each(|name| remembered.apply_to(&mut ring, name));
        }
        // What was said of a stay in the pool ends with it.
        let mut forgotten = false;
        for name in &synced.retired {
            forgotten |= remembered.forget_states(name);
        }
        if forgotten {
            let text = serde_json::to_string(&*remembered).unwrap_or_default();
            if let Err(error) = store.remember(&self.key(), &text).await {
                tracing::warn!(pool = &*self.name, %error, "what the list retired is not written down");
            }
        }
        drop(remembered);
        *self.followed() = Followed { at: Some(UnixMillis::now()), listed, fault: None };
        let names = |names: &[std::sync::Arc<str>]| names.join(" ");
        if !(synced.added.is_empty() && synced.retired.is_empty() && synced.changed.is_empty()) {
            tracing::info!(
                pool = &*self.name,
                added = names(&synced.added),
                retired = names(&synced.retired),
                changed = names(&synced.changed),
                "the list of egress proxies changed"
            );
        }
        Ok(())
    }

    /// Under this name the store remembers what people changed.
    pub(super) fn key(&self) -> String {
        format!("{REMEMBERED}{}", self.name)
    }
}

/// A change that is written down, or on its way to be: it acts when this is dropped.
struct Act<'a> {
    pool: &'a Pool,
    remembered: tokio::sync::MutexGuard<'a, Remembered>,
    next: Remembered,
    name: String,
    change: Change,
    added: Option<Proxy>,
    said: Said,
    is_written: bool,
}

impl Drop for Act<'_> {
    fn drop(&mut self) {
        if !self.is_written {
            return;
        }
        *self.remembered = std::mem::take(&mut self.next);
        let (mut ring, said) = (self.pool.ring(), self.said.clone());
        if let Some(proxy) = self.added.take() {
            ring.add(proxy, Origin::Added);
            return;
        }
        match (&self.change, ring.named(&self.name)) {
            (Change::Retire, _) => ring.retire(&self.name, said, true),
            (Change::Drain, Some(member)) => member.draining = Some(said),
            (Change::Activate, Some(member)) => member.activate(),
            (Change::Cool(rest), Some(member)) => member.cool(*rest, said, Instant::now()),
            (Change::Add { .. }, _) | (_, None) => {}
        }
    }
}

impl Remembered {
    fn after(&self, name: &str, change: &Change, said: &Said) -> Result<Self, ChangeFault> {
        let mut next = self.clone();
        match change {
            Change::Add { url, only_for } => {
                let added =
                    Added { url: url.clone(), only_for: only_for.clone(), said: said.clone() };
                next.retired.remove(name);
                next.added.insert(name.to_owned(), added);
            }
            Change::Retire => {
                next.added.remove(name);
                next.forget_states(name);
                next.retired.insert(name.to_owned(), said.clone());
            }
            Change::Activate => {
                next.forget_states(name);
            }
            Change::Drain => {
                next.draining.insert(name.to_owned(), said.clone());
            }
            Change::Cool(rest) => {
                let rest = Rest { until: said.at.plus(*rest), said: said.clone() };
                next.cooling.insert(name.to_owned(), rest);
            }
        }
        next.cooling.retain(|_, rest| rest.until > said.at);
        debug_assert!(is_name(name), "only proxies have names here");
        let largest = next.retired.len().max(next.added.len());
        if largest > MOST_REMEMBERED { Err(ChangeFault::Full(MOST_REMEMBERED)) } else { Ok(next) }
    }
}

impl Change {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Retire => "retire",
            Self::Activate => "activate",
            Self::Cool(_) => "cool",
            Self::Add { .. } => "add",
        }
    }
}

/// Without the URL, which may hold a password.
impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

pub(super) const REMEMBERED: &str = "egress/";
/// Proxies that people retired or added: a name that was retired is never forgotten.
const MOST_REMEMBERED: usize = 4096;
