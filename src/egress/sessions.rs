//! Which session goes through which proxy: by a digest of its key, so many at most, each until it was idle for too
//! long. Pure: time is passed in.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::{member::MemberId, rules::Group};

/// A session's key as it is kept: a digest, for it may be a cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey(pub(super) u128);

/// See the module.
#[derive(Debug)]
pub(super) struct Sessions {
    by_key: HashMap<(Group, SessionKey), Session>,
    /// The one that was idle longest first.
    by_turn: BTreeMap<u64, (Group, SessionKey)>,
    next_turn: u64,
    most: usize,
    idle: Duration,
}

#[derive(Debug)]
struct Session {
    member: MemberId,
    used: Instant,
    turn: u64,
}

impl Sessions {
    pub(super) fn new(most: usize, idle: Duration) -> Self {
        Self { by_key: HashMap::new(), by_turn: BTreeMap::new(), next_turn: 0, most, idle }
    }

    /// The proxy of a session that goes on.
    pub(super) fn member(
        &mut self,
        group: Group,
        key: SessionKey,
        now: Instant,
    ) -> Option<MemberId> {
        self.expire(now);
        self.by_key.get(&(group, key)).map(|session| session.member)
    }

    /// The session is used now, through this proxy.
    pub(super) fn used(&mut self, group: Group, key: SessionKey, member: MemberId, now: Instant) {
        self.end(group, key);
        if self.most == 0 {
            return;
        }
        while self.by_key.len() >= self.most {
            self.end_longest_idle();
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.by_turn.insert(turn, (group, key));
        self.by_key.insert((group, key), Session { member, used: now, turn });
    }

    pub(super) fn end(&mut self, group: Group, key: SessionKey) {
        if let Some(session) = self.by_key.remove(&(group, key)) {
            self.by_turn.remove(&session.turn);
        }
    }

    /// Ends the sessions of a proxy that is gone.
    pub(super) fn end_of(&mut self, member: MemberId) {
        self.by_key.retain(|_, session| session.member != member);
        self.by_turn.retain(|_, place| self.by_key.contains_key(place));
    }

    /// Sessions that go on, by proxy.
    pub(super) fn count(&mut self, now: Instant) -> HashMap<MemberId, u64> {
        self.expire(now);
        let mut counts = HashMap::new();
        for session in self.by_key.values() {
            *counts.entry(session.member).or_default() += 1;
        }
        counts
    }

    fn expire(&mut self, now: Instant) {
        while let Some((_, place)) = self.by_turn.first_key_value() {
            let used = self.by_key.get(place).map(|session| session.used);
            if used.is_some_and(|used| now.saturating_duration_since(used) < self.idle) {
                return;
            }
            self.end_longest_idle();
        }
    }

    fn end_longest_idle(&mut self) {
        if let Some((_, place)) = self.by_turn.pop_first() {
            self.by_key.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = Group::Lists(0);

    #[test]
    fn a_session_lives_as_long_as_it_is_used() {
        let (mut sessions, mut now) = (Sessions::new(10, Duration::from_secs(60)), Instant::now());
        sessions.used(GROUP, SessionKey(1), 7, now);
        for _ in 0..5 {
            now += Duration::from_secs(59);
            assert_eq!(sessions.member(GROUP, SessionKey(1), now), Some(7));
            sessions.used(GROUP, SessionKey(1), 7, now);
        }
        now += Duration::from_secs(60);
        assert_eq!(sessions.member(GROUP, SessionKey(1), now), None);
        assert!(sessions.by_key.is_empty() && sessions.by_turn.is_empty());
    }

    #[test]
    fn at_the_bound_the_one_that_was_idle_longest_ends() {
        let (mut sessions, now) = (Sessions::new(3, Duration::from_secs(60)), Instant::now());
        for key in [1, 2, 3, 1, 4] {
            sessions.used(GROUP, SessionKey(key), 7, now);
        }
        let left =
            |sessions: &mut Sessions, key| sessions.member(GROUP, SessionKey(key), now).is_some();
        assert_eq!([1, 2, 3, 4].map(|key| left(&mut sessions, key)), [true, false, true, true]);
        assert_eq!(sessions.by_turn.len(), 3);
    }

    #[test]
    fn a_proxy_that_is_gone_takes_its_sessions_with_it() {
        let (mut sessions, now) = (Sessions::new(10, Duration::from_secs(60)), Instant::now());
        for key in 0..6 {
            sessions.used(GROUP, SessionKey(key), (key % 2) as MemberId, now);
        }
        sessions.end_of(1);
        assert_eq!(sessions.count(now), HashMap::from([(0, 3)]));
        assert_eq!(sessions.by_turn.len(), 3);
    }
}
