//! Which entries have expired, and before when none can have: there may be millions, and most live for days.

use super::OpenIndex;
use crate::{
    store::{Seq, State},
    time::UnixMillis,
};

/// Before which time nothing can have expired.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Of those that were there in the last round that came to its end.
    none_before: i64,
    /// Of those that came, or changed, since it began.
    of_new: i64,
    /// What a round has seen so far.
    found: i64,
}

impl Expiry {
    pub(super) fn new() -> Self {
        Self { none_before: i64::MAX, of_new: i64::MAX, found: i64::MAX }
    }

    pub(super) fn note(&mut self, expires_at: i64) {
        self.of_new = self.of_new.min(expires_at);
    }

    /// False if there is nothing to look for. A round that does not come to its end leaves the next one to be made.
    fn begin_round(&mut self, now: i64) -> bool {
        if now < self.none_before.min(self.of_new) {
            return false;
        }
        (self.none_before, self.of_new, self.found) = (i64::MIN, i64::MAX, i64::MAX);
        true
    }

    fn end_round(&mut self) {
        self.none_before = self.found;
    }
}

impl OpenIndex {
    /// Stored entries past their expiry, heads of their sequences or not, among the next `look_at` from `from` on; and where
    /// to go on. One that waits for its `not_before` may still be closed by a late answer: it is not among them yet.
    /// Looks at nothing while it is known that nothing has expired.
    pub(in crate::store) fn expired(
        &mut self,
        from: Seq,
        now: UnixMillis,
        look_at: usize,
    ) -> (Vec<Seq>, Option<Seq>) {
        if from == Seq(0) && !self.expiry.begin_round(now.0) {
            return (Vec::new(), None);
        }
        let mut rows = self.rows.up_from(from.0);
        let mut expired = Vec::new();
        for row in rows.by_ref().take(look_at).filter(|row| row.state == State::Stored) {
            self.expiry.found = self.expiry.found.min(row.expires_at);
            if row.seq <= self.visible && row.expires_at.max(row.not_before) <= now.0 {
                expired.push(Seq(row.seq));
            }
        }
        let next = rows.next().map(|row| Seq(row.seq));
        drop(rows);
        if next.is_none() {
            self.expiry.end_round();
        }
        (expired, next)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::due::tests::due_at, *};
    use crate::store::Outcome;

    fn expired(index: &mut OpenIndex, now: i64) -> Vec<Seq> {
        let (mut all, mut from) = (Vec::new(), Some(Seq(0)));
        while let Some(seq) = from {
            let (some, next) = index.expired(seq, UnixMillis(now), 2);
            all.extend(some);
            from = next;
        }
        all
    }

    fn expires(index: &mut OpenIndex, seq: i64, at: i64) {
        index.change(seq, |row| row.expires_at = at);
    }

    #[test]
    fn what_expires_is_found_whatever_was_known_before() {
        let mut index = due_at(&[0, 0, 0, 0, 0]);
        expires(&mut index, 1, 500);
        expires(&mut index, 2, 900);
        assert_eq!(expired(&mut index, 499), []);
        assert_eq!(expired(&mut index, 500), [Seq(1)]);
        // As long as nobody holds it, it is found again.
        assert_eq!(expired(&mut index, 501), [Seq(1)]);
        index.close(1, Outcome::WrittenOff, UnixMillis(501));
        assert_eq!(expired(&mut index, 502), []);
        assert_eq!(index.expiry.none_before, 900);
        // One that changes in the middle of a round, behind it.
        let (none, next) = index.expired(Seq(0), UnixMillis(950), 2);
        assert_eq!((none, next), (vec![Seq(2)], Some(Seq(4))));
        expires(&mut index, 3, 960);
        index.close(2, Outcome::WrittenOff, UnixMillis(951));
        assert_eq!(index.expired(Seq(4), UnixMillis(950), 2), (vec![], None));
        assert_eq!(expired(&mut index, 959), []);
        assert_eq!(expired(&mut index, 960), [Seq(3)]);
        // A round that was given up is made again.
        expires(&mut index, 3, 5_000);
        expires(&mut index, 4, 1_000);
        let (none, _) = index.expired(Seq(0), UnixMillis(1_000), 1);
        assert_eq!(none, []);
        assert_eq!(expired(&mut index, 1_000), [Seq(4)]);
    }
}
