//! One proxy as a member of its pool: active, draining, cooling; how often it was used and failed. Pure: time is
//! passed in.
//!
//! A member is one stay of a proxy in the pool. Its number is never given twice: a proxy that left and came back is
//! another member, and what was begun with the first does not touch the second.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::proxy::Proxy;
use crate::{config::CoolingConfig, time::UnixMillis};

pub(super) type MemberId = u64;

/// Where a proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Takes its turn.
    Active,
    /// Finishes its sessions and takes nothing new.
    Draining,
    /// Rests: the far side blocked it, or it failed. Takes nothing until a time.
    Cooling,
    /// Never used again.
    Retired,
}

/// Who says so, why and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub by: String,
    pub why: String,
    pub at: UnixMillis,
}

/// From where the pool has a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// `proxies` of the configuration.
    Configured,
    /// The list that is followed.
    Source,
    /// A person, by the API.
    Added,
}

/// What was counted of one member; outlives it, for what is still in flight.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub(super) requests: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) blocked: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) proxy: Arc<Proxy>,
    pub(super) origin: Origin,
    /// By rule: whether such jobs take it.
    pub(super) allows: Vec<bool>,
    pub(super) draining: Option<Said>,
    /// The list that is followed says so.
    pub(super) drained_by_source: bool,
    pub(super) cooling: Option<Cooling>,
    pub(super) uses: Arc<Uses>,
    failures: u32,
    rests: u32,
    /// Times in a row that it could not reach the app, and how often others had done so when that began.
    unreached: Option<(u32, u64)>,
}

/// See [`Standing::Cooling`].
#[derive(Clone, Debug)]
pub(super) struct Cooling {
    pub(super) until: Instant,
    pub(super) said: Said,
}

impl Member {
    pub(super) fn new(id: MemberId, proxy: Arc<Proxy>, origin: Origin, allows: Vec<bool>) -> Self {
        Self {
            id,
            proxy,
            origin,
            allows,
            draining: None,
            drained_by_source: false,
            cooling: None,
            uses: Arc::default(),
            failures: 0,
            rests: 0,
            unreached: None,
        }
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        match () {
            () if self.draining.is_some() => Standing::Draining,
            () if self.is_cooling(now) => Standing::Cooling,
            () => Standing::Active,
        }
    }

    pub(super) fn takes_new(&self, now: Instant) -> bool {
        self.standing(now) == Standing::Active
    }

    /// A draining proxy goes on with its sessions; one that rests does not.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        !self.is_cooling(now)
    }

    /// The proxy did its work.
    pub(super) fn worked(&mut self, now: Instant) {
        self.unreached = None;
        if !self.is_cooling(now) {
            (self.failures, self.rests) = (0, 0);
        }
    }

    /// It is there, but says that it cannot reach the app. Only where others could meanwhile is that its own failure:
    /// an app that is down rests nobody. `worked_so_far`: how often any of the pool did its work. True if it rests now.
    pub(super) fn did_not_reach(
        &mut self,
        worked_so_far: u64,
        said: Said,
        now: Instant,
        config: &CoolingConfig,
    ) -> bool {
        let (times, began) = self.unreached.unwrap_or((0, worked_so_far));
        self.unreached = Some((times.saturating_add(1), began));
        if times + 1 < config.failures.get() || worked_so_far == began {
            self.uses.failed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.failures = config.failures.get();
        self.unreached = None;
        self.failed(said, now, config)
    }

    /// The proxy itself failed. True if it rests now and did not before.
    pub(super) fn failed(&mut self, said: Said, now: Instant, config: &CoolingConfig) -> bool {
        self.uses.failed.fetch_add(1, Ordering::Relaxed);
        // What was under way when it began to rest says nothing new.
        if self.is_cooling(now) {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures < config.failures.get() {
            return false;
        }
        let rest = config
            .after_failure
            .saturating_mul(1 << self.rests.min(16))
            .min(config.max_after_failure);
        self.rests = self.rests.saturating_add(1);
        // After the rest one more failure is enough.
        self.failures = config.failures.get() - 1;
        self.cool(rest, said, now);
        true
    }

    /// The far side blocked it. True if it rests now and did not before.
    pub(super) fn blocked(&mut self, rest: Duration, said: Said, now: Instant) -> bool {
        self.uses.blocked.fetch_add(1, Ordering::Relaxed);
        let begins = !self.is_cooling(now);
        self.cool(rest, said, now);
        begins
    }

    /// Rests for so long from now; a longer rest stays.
    pub(super) fn cool(&mut self, rest: Duration, said: Said, now: Instant) {
        let until = now + rest;
        if self.cooling.as_ref().is_none_or(|cooling| cooling.until < until) {
            self.cooling = Some(Cooling { until, said });
        }
    }

    /// As if nothing had been.
    pub(super) fn activate(&mut self) {
        (self.draining, self.cooling) = (None, None);
        (self.failures, self.rests, self.unreached) = (0, 0, None);
    }

    fn is_cooling(&self, now: Instant) -> bool {
        self.cooling.as_ref().is_some_and(|cooling| now < cooling.until)
    }
}

impl Said {
    pub(super) fn standin(why: impl Into<String>) -> Self {
        Self { by: "standin".to_owned(), why: why.into(), at: UnixMillis::now() }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::proxy::Credentials, *};

    fn member() -> Member {
        let proxy = Proxy::parse("http://10.0.0.9:3128", &Credentials::default(), &[]).unwrap();
        Member::new(1, Arc::new(proxy), Origin::Configured, vec![true])
    }

    fn rest(member: &Member, now: Instant) -> Duration {
        member
            .cooling
            .as_ref()
            .map_or(Duration::ZERO, |cooling| cooling.until.saturating_duration_since(now))
    }

    #[test]
    fn failures_in_a_row_cool_for_a_growing_time() {
        let (mut member, mut now, config) = (member(), Instant::now(), CoolingConfig::default());
        assert!(!member.failed(Said::standin("refused"), now, &config));
        member.worked(now);
        assert!(!member.failed(Said::standin("refused"), now, &config));
        assert!(member.failed(Said::standin("refused"), now, &config));
        for seconds in [5, 10, 20, 40] {
            assert_eq!(member.standing(now), Standing::Cooling);
            assert_eq!(rest(&member, now), Duration::from_secs(seconds));
            // Others that were under way at the time.
            assert!(!member.failed(Said::standin("refused"), now, &config));
            now += Duration::from_secs(seconds);
            assert_eq!(member.standing(now), Standing::Active);
            assert!(member.failed(Said::standin("refused"), now, &config), "one more is enough");
        }
        for _ in 0..30 {
            now += config.max_after_failure;
            member.failed(Said::standin("refused"), now, &config);
            assert!(rest(&member, now) <= config.max_after_failure);
        }
        now += config.max_after_failure;
        member.worked(now);
        assert!(!member.failed(Said::standin("refused"), now, &config));
    }

    #[test]
    fn one_that_does_not_reach_the_app_rests_only_if_others_do() {
        let (mut member, now, config) = (member(), Instant::now(), CoolingConfig::default());
        let mut not_reached =
            |worked| member.did_not_reach(worked, Said::standin("it answered 502"), now, &config);
        // Nobody reaches it: the app is down.
        assert!((0..50).all(|_| !not_reached(7)));
        assert!(not_reached(8));
    }

    #[test]
    fn the_longest_rest_counts_and_activate_ends_it() {
        let (mut member, now) = (member(), Instant::now());
        assert!(member.blocked(Duration::from_secs(60), Said::standin("429"), now));
        assert!(!member.blocked(Duration::from_secs(10), Said::standin("403"), now));
        assert_eq!(rest(&member, now), Duration::from_secs(60));
        member.draining = Some(Said::standin("drain"));
        assert_eq!((member.standing(now), member.goes_on(now)), (Standing::Draining, false));
        member.activate();
        assert_eq!(member.standing(now), Standing::Active);
    }
}
