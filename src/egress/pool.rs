//! A pool as all threads share it: who wants to send takes a [`Permit`], under one small lock, and asks it again right
//! before the first byte leaves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::{
    list::Listed,
    member::{MemberId, Origin, Said, Uses},
    proxy::{Credentials, Proxy, ProxyFault},
    remembered::Remembered,
    ring::{Ring, Synced, Turn},
    rules::{Rule, RuleId},
    sessions::{SessionKey, Sessions},
};
use crate::config::EgressConfig;

/// See the module.
#[derive(Debug)]
pub struct Pool {
    pub name: Arc<str>,
    pub config: EgressConfig,
    pub(super) credentials: Credentials,
    ring: Mutex<Ring>,
    /// What people changed. Locked by whoever changes who is a member: one at a time.
    pub(super) remembered: tokio::sync::Mutex<Remembered>,
    pub(super) followed: Mutex<Followed>,
}

/// What the choice of a proxy has to know of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    pub(super) rule: RuleId,
    pub(super) session: Option<SessionKey>,
}

/// Leave for one job to go through one proxy. While it lives the proxy is in use.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    id: MemberId,
    pub proxy: Arc<Proxy>,
    uses: Arc<Uses>,
}

/// Tells one stay of a proxy in its pool from every other; a connection through it is kept under this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Through(MemberId);

/// Every proxy that the job may take rests, drains, or failed for it already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no egress proxy is free")]
pub struct NoWayOut {
    /// When the first one has rested, if one does.
    pub retry_after: Option<Duration>,
}

/// How the last look at the list went.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    pub(super) at: Option<crate::time::UnixMillis>,
    pub(super) listed: usize,
    pub(super) fault: Option<String>,
}

impl Pool {
    pub fn new(name: &str, config: &EgressConfig) -> Result<Arc<Self>, ProxyFault> {
        let password = config.password.as_ref().map(|password| &*password.0);
        let credentials = Credentials::new(config.user.as_deref(), password);
        let mut ring = Ring::new(Sessions::new(config.sessions, config.session_idle));
        for proxy in &config.proxies {
            ring.add(
                Proxy::parse(proxy.url(), &credentials, proxy.only_for())?,
                Origin::Configured,
            );
        }
        Ok(Arc::new(Self {
            name: name.into(),
            config: config.clone(),
            credentials,
            ring: Mutex::new(ring),
            remembered: tokio::sync::Mutex::default(),
            followed: Mutex::default(),
        }))
    }

    /// The job of a kind; for one without a session key.
    pub fn job(&self, rule: Rule) -> Job {
        Job { rule: self.ring().rule(rule), session: None }
    }

    /// The proxy whose turn it is, or that of the job's session. `tried`: those that failed for this job already.
    pub fn permit(self: &Arc<Self>, job: Job, tried: &[Through]) -> Result<Permit, NoWayOut> {
        let (now, tried) =
            (Instant::now(), tried.iter().map(|through| through.0).collect::<Vec<_>>());
        let turn = {
            let mut ring = self.ring();
            let turn = ring.take(job.rule, job.session, &tried, now);
            // Counted under the lock: who retires it knows whether anything is in flight.
            turn.inspect(|turn| {
                turn.uses.in_flight.fetch_add(1, Ordering::Relaxed);
                turn.uses.requests.fetch_add(1, Ordering::Relaxed);
            })
        };
        match turn {
            Ok(Turn { id, proxy, uses }) => Ok(Permit { pool: Arc::clone(self), id, proxy, uses }),
            Err(none) => {
                let retry_after = none.until.map(|until| until.saturating_duration_since(now));
                Err(NoWayOut { retry_after })
            }
        }
    }

    pub(super) fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sync(&self, list: Vec<Listed>) -> Synced {
        self.ring().sync(list, &Said::standin("the list that is followed says so"))
    }
}

impl Permit {
    /// Asked right before a connection is opened or used: false once the proxy is retired.
    pub fn is_valid(&self) -> bool {
        self.pool.ring().is_member(self.id)
    }

    pub fn through(&self) -> Through {
        Through(self.id)
    }

    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The far side answered through the proxy.
    pub fn answered(&self, status: StatusCode, headers: &HeaderMap) {
        let (now, cooling) = (Instant::now(), &self.pool.config.cooling);
        let mut ring = self.pool.ring();
        let Some(member) = ring.member(self.id) else { return };
        if !cooling.statuses.contains(&status.as_u16()) {
            member.worked(now);
            ring.worked += 1;
            return;
        }
        let rest = retry_after(headers).unwrap_or(cooling.time).min(cooling.max_time);
        let said = Said::standin(format!("the far side answered {}", status.as_u16()));
        if member.blocked(rest, said, now) {
            drop(ring);
            self.warn(&format!("rests for {rest:?}: the far side answered {}", status.as_u16()));
        }
    }

    /// The proxy itself failed: nothing of the request went through it, or nothing came back.
    pub fn failed(&self, why: &str) {
        let mut ring = self.pool.ring();
        let Some(member) = ring.member(self.id) else { return };
        let begins = member.failed(Said::standin(why), Instant::now(), &self.pool.config.cooling);
        drop(ring);
        if begins {
            self.warn(&format!("rests: {why}"));
        }
    }

    /// The proxy is there, but says that it cannot reach the app.
    pub fn did_not_reach(&self, why: &str) {
        let mut ring = self.pool.ring();
        let worked = ring.worked;
        let Some(member) = ring.member(self.id) else { return };
        let (said, config) = (Said::standin(why), &self.pool.config.cooling);
        let begins = member.did_not_reach(worked, said, Instant::now(), config);
        drop(ring);
        if begins {
            self.warn(&format!("rests: {why}, and others reach the app"));
        }
    }

    fn warn(&self, what: &str) {
        tracing::warn!(
            pool = &*self.pool.name,
            proxy = &*self.proxy.name,
            "an egress proxy {what}"
        );
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.uses.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// RFC 9110, 10.2.3: seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
