//! What waits for a person, oldest first, in pages: the worklist as the store knows it.

use super::{
    EntrySummary, HeldReason, Mark, Outcome, Seq, State, Store, StoreError, or_empty,
    receipt::Receipts, sqlite::Reader,
};

/// Which of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The app's final no, after a yes to the customer, that nobody has followed up yet.
    Declined,
    Held(HeldReason),
}

/// A page of it.
#[derive(Clone, Debug, Default)]
pub struct WorkPage {
    pub entries: Vec<EntrySummary>,
    /// Give this as `after` for the next page.
    pub more: Option<Seq>,
}

impl Store {
    /// The next ones after `after`, oldest first.
    pub async fn work(
        &self,
        of: Work,
        after: Option<Seq>,
        at_most: u32,
    ) -> Result<WorkPage, StoreError> {
        let at_most = at_most.clamp(1, super::LONGEST_PAGE) as usize;
        let after = after.unwrap_or(Seq(0));
        let held = match of {
            Work::Declined => None,
            Work::Held(reason) => Some(self.held(reason, after, at_most + 1)),
        };
        let receipts = self.shared().receipts;
        let read = move |reader: &Reader| read(reader, of, held, after, at_most, receipts);
        or_empty(self.shared().readers.read(read).await)
    }

    /// How much of it there is. No IO.
    pub fn work_count(&self, of: Work) -> u64 {
        match of {
            Work::Declined => self.totals().routes.values().map(|route| route.declined).sum(),
            Work::Held(reason) => self.held(reason, Seq(0), usize::MAX).len() as u64,
        }
    }

    /// A person has told the customer, or entered the order by hand: the entry stays closed and declined, and leaves the
    /// worklist. `Moved` if it is not declined, or was followed up before.
    pub async fn follow_up(&self, seq: Seq, who: &str, why: &str) -> Result<(), StoreError> {
        // One at a time: what one person has done, the next one sees.
        let _turn = self.shared().follow_ups.lock().await;
        let entry = self.load(seq).await?;
        if entry.outcome != Some(Outcome::Declined) || entry.followed_up.is_some() {
            return Err(StoreError::Moved(entry.state));
        }
        let (who, why) = (who.to_owned(), why.to_owned());
        self.mark(Mark::FollowUp { seq, who, why }).await?;
        // Only now: what is not on disk has not left the worklist.
        self.shared().index().declined_gone(&entry.route, 1);
        self.shared().changed();
        Ok(())
    }

    /// Held for this reason, looked for a portion at a time: nobody waits long for the index.
    fn held(&self, reason: HeldReason, after: Seq, at_most: usize) -> Vec<Seq> {
        let (mut found, mut from) = (Vec::new(), Some(after));
        while let Some(after) = from.filter(|_| found.len() < at_most) {
            let (some, next) = self.shared().index().held_for(reason, after, LOOK_AT);
            found.extend(some);
            from = next;
        }
        found.truncate(at_most);
        found
    }
}

fn read(
    reader: &Reader,
    of: Work,
    held: Option<Vec<Seq>>,
    after: Seq,
    at_most: usize,
    receipts: Receipts,
) -> Result<WorkPage, StoreError> {
    let mut seqs = match held {
        Some(held) => held,
        None => reader.to_follow_up(after, at_most + 1)?,
    };
    let more = (seqs.len() > at_most).then(|| seqs[at_most - 1]);
    seqs.truncate(at_most);
    let mut entries = reader.summaries(&seqs, receipts)?;
    // Some may have moved since they were found.
    entries.retain(|entry| match of {
        Work::Declined => entry.outcome == Some(Outcome::Declined) && entry.followed_up.is_none(),
        Work::Held(reason) => entry.state == State::Held && entry.held == Some(reason),
    });
    Ok(WorkPage { entries, more })
}

/// Held entries looked at while the index is locked.
const LOOK_AT: usize = 2048;
