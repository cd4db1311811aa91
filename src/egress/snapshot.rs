//! A pool as it is shown: plain data, without credentials.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    member::{Member, Origin, Said, Standing, Uses},
    pool::Pool,
    ring::Retired,
};
use crate::time::UnixMillis;

/// See the module.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    pub name: Arc<str>,
    /// Retired ones come last.
    pub proxies: Vec<ProxySnapshot>,
    pub sessions: u64,
    pub source: Option<SourceSnapshot>,
}

#[derive(Clone, Debug)]
pub struct ProxySnapshot {
    pub name: Arc<str>,
    pub standing: Standing,
    /// Counted anew each time it comes into the pool. None for a name that never was in it since the start.
    pub generation: Option<u64>,
    pub origin: Option<Origin>,
    pub only_for: Vec<String>,
    /// Why it stands as it does.
    pub said: Option<Said>,
    /// The end of its rest.
    pub until: Option<UnixMillis>,
    pub sessions: u64,
    pub requests: u64,
    pub in_flight: u64,
    pub failed: u64,
    pub blocked: u64,
}

/// The list that is followed.
#[derive(Clone, Debug)]
pub struct SourceSnapshot {
    /// When it was last taken.
    pub at: Option<UnixMillis>,
    pub listed: usize,
    /// Why it was not taken since.
    pub fault: Option<String>,
}

impl Pool {
    pub fn snapshot(&self) -> PoolSnapshot {
        let (now, wall) = (Instant::now(), UnixMillis::now());
        let mut ring = self.ring();
        let sessions = ring.sessions.count(now);
        let count = |member: &Member| sessions.get(&member.id).copied().unwrap_or(0);
        let mut proxies: Vec<ProxySnapshot> = ring
            .members()
            .iter()
            .map(|member| of_member(member, count(member), now, wall))
            .collect();
        proxies.extend(ring.retired().iter().map(|(name, retired)| of_retired(name, retired)));
        drop(ring);
        let followed = self.followed().clone();
        PoolSnapshot {
            name: Arc::clone(&self.name),
            proxies,
            sessions: sessions.values().sum(),
            source: self.config.source.as_ref().map(|_| SourceSnapshot {
                at: followed.at,
                listed: followed.listed,
                fault: followed.fault,
            }),
        }
    }
}

fn of_member(member: &Member, sessions: u64, now: Instant, wall: UnixMillis) -> ProxySnapshot {
    let standing = member.standing(now);
    let cooling = member.cooling.as_ref().filter(|cooling| now < cooling.until);
    let rest = cooling.map(|cooling| cooling.until.saturating_duration_since(now));
    ProxySnapshot {
        generation: Some(member.id),
        origin: Some(member.origin),
        standing,
        said: member.draining.clone().or_else(|| cooling.map(|cooling| cooling.said.clone())),
        until: rest.filter(|rest| *rest > Duration::ZERO).map(|rest| wall.plus(rest)),
        only_for: member.proxy.only_for.clone(),
        sessions,
        ..of_uses(&member.proxy.name, &member.uses)
    }
}

fn of_retired(name: &Arc<str>, retired: &Retired) -> ProxySnapshot {
    let uses = retired.uses.clone().unwrap_or_default();
    ProxySnapshot {
        standing: Standing::Retired,
        generation: retired.id,
        said: Some(retired.said.clone()),
        ..of_uses(name, &uses)
    }
}

fn of_uses(name: &Arc<str>, uses: &Uses) -> ProxySnapshot {
    ProxySnapshot {
        name: Arc::clone(name),
        standing: Standing::Active,
        generation: None,
        origin: None,
        only_for: Vec::new(),
        said: None,
        until: None,
        sessions: 0,
        requests: uses.requests.load(Ordering::Relaxed),
        in_flight: uses.in_flight.load(Ordering::Relaxed),
        failed: uses.failed.load(Ordering::Relaxed),
        blocked: uses.blocked.load(Ordering::Relaxed),
    }
}
