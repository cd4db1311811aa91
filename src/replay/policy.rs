//! Whether an entry may be sent at all, and again. Pure: the entry, today's route, and the time are given.

use std::time::Duration;

use crate::{
    router::Route,
    store::{Certainty, Entry, HeldReason},
    time::UnixMillis,
};

/// What decides over the attempts of one entry. Identity, expiry and upstream come from the entry; policy comes from
/// today's route of that name.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    /// The app refuses duplicates until then; none: it does not at all.
    pub protected_until: Option<UnixMillis>,
    pub max_attempts: u32,
    pub min_backoff: Duration,
    pub max_backoff: Duration,
    /// How long the app may still work on an attempt that it did not answer.
    pub late_window: Duration,
}

impl Policy {
    pub(super) fn of(entry: &Entry, route: &Route) -> Self {
        let replay = &route.config.replay;
        Self {
            protected_until: route.protected_until(entry.received_at),
            max_attempts: replay.max_attempts.get(),
            min_backoff: replay.min_backoff,
            max_backoff: replay.max_backoff,
            late_window: route.upstream.config.late_window,
        }
    }

    /// Whether the app would notice a duplicate that is sent at `at`.
    pub(super) fn protects(&self, at: UnixMillis) -> bool {
        self.protected_until.is_some_and(|until| at < until)
    }

    /// What must hold before an entry is sent; else why a person must decide.
    pub(super) fn may_be_sent(
        &self,
        entry: &Entry,
        now: UnixMillis,
    ) -> Result<(), (HeldReason, String)> {
        if !entry.intact {
            let why = "its bytes are not those that were stored: the checksum does not fit";
            return Err((HeldReason::Damaged, why.to_owned()));
        }
        if now >= entry.expires_at {
            return Err((HeldReason::Expired, format!("expired at {}", entry.expires_at)));
        }
        if entry.attempts >= self.max_attempts {
            return Err((HeldReason::Attempts, format!("{} attempts were made", entry.attempts)));
        }
        if entry.certainty == Certainty::SentUnknown && !self.protects(now) {
            let why = "it may have been applied, and the app";
            let why = match self.protected_until {
                Some(until) => format!("{why} notices duplicates only until {until}"),
                None => format!("{why} would not notice a duplicate"),
            };
            return Err((HeldReason::Unclear, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::request::tests::entry, *};

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn policy(protected_until: Option<i64>) -> Policy {
        Policy {
            protected_until: protected_until.map(UnixMillis),
            max_attempts: 3,
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            late_window: Duration::from_secs(20),
        }
    }

    fn held(policy: &Policy, change: impl FnOnce(&mut Entry)) -> Option<HeldReason> {
        let mut entry = entry();
        change(&mut entry);
        policy.may_be_sent(&entry, NOW).err().map(|(reason, _)| reason)
    }

    #[test]
    fn each_reason_to_hold() {
        let (bare, protected) = (policy(None), policy(Some(NOW.0 + 1)));
        let unknown = |entry: &mut Entry| entry.certainty = Certainty::SentUnknown;
        assert_eq!(held(&bare, |_| {}), None);
        assert_eq!(held(&bare, |entry| entry.intact = false), Some(HeldReason::Damaged));
        assert_eq!(held(&bare, |entry| entry.expires_at = NOW), Some(HeldReason::Expired));
        assert_eq!(held(&bare, |entry| entry.attempts = 3), Some(HeldReason::Attempts));
        assert_eq!(held(&bare, |entry| entry.attempts = 2), None);
        assert_eq!(held(&bare, unknown), Some(HeldReason::Unclear));
        assert_eq!(held(&protected, unknown), None);
        assert_eq!(held(&policy(Some(NOW.0)), unknown), Some(HeldReason::Unclear), "just over");
    }

    proptest! {
        #[test]
        fn never_past_its_expiry_nor_in_doubt_without_protection(
            expires_at: i64, now: i64, attempts in 0..6_u32, unknown: bool, until: Option<i64>,
        ) {
            let mut entry = entry();
            entry.expires_at = UnixMillis(expires_at);
            entry.attempts = attempts;
            if unknown {
                entry.certainty = Certainty::SentUnknown;
            }
            let policy = policy(until);
            if policy.may_be_sent(&entry, UnixMillis(now)).is_ok() {
                prop_assert!(now < expires_at && attempts < policy.max_attempts);
                prop_assert!(!unknown || until.is_some_and(|until| now < until));
            }
        }
    }
}
