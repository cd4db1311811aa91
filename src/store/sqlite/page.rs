//! Pages of entries: exact, newest first, with what is not yet indexed found in the log itself.

use std::{
    cell::{Cell, RefCell},
    ops::ControlFlow,
};

use rusqlite::{Row as SqlRow, params};

use super::{
    lazy::{HOUR, INDEXED_TO, SALT, SEGMENT, Sought, segment_of},
    read::Reader,
    start::number,
    stored::{JOINED, STORED, Stored, record},
};
use crate::store::{
    EntrySummary, PageQuery, Seq, State, StoreError, codec::read_labels, receipt::Receipts,
};

/// What the page needs of the open index.
pub(in crate::store) trait Live {
    /// Entries below `before` in `state`, newest first.
    fn in_state(&self, state: State, before: i64, at_most: usize) -> Vec<Seq>;
    /// Shows what only memory knows: claims.
    fn show(&self, summary: &mut EntrySummary);
}

/// Entries that fit, and where a search that looked at many goes on.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    pub(in crate::store) entries: Vec<EntrySummary>,
    pub(in crate::store) looked_down_to: Option<Seq>,
    /// At how many entries.
    pub(in crate::store) looked: usize,
}

impl Reader {
    /// Looks from the newest entry below `before` on, at the entries that the most selective filter leaves, until
    /// `at_most` fit. Ends early and says where once it has looked at many: as long as it looks, the log cannot begin
    /// anew, and whoever writes pays for that later.
    pub(in crate::store) fn page(
        &self,
        query: &PageQuery,
        receipts: Receipts,
        live: &dyn Live,
        at_most: usize,
    ) -> Result<Found, StoreError> {
        // One transaction: what the index tables say and what the log says is of one moment.
        let snapshot = self.connection.unchecked_transaction()?;
        let search = Search::new(self, query, receipts, live, at_most)?;
        let found = search.run()?;
        drop(snapshot);
        Ok(found)
    }
}

struct Search<'a> {
    reader: &'a Reader,
    query: &'a PageQuery,
    receipts: Receipts,
    receipt: Option<Seq>,
    /// Whether a label that is the text must contain it as it is: nothing in it is escaped in JSON.
    plain: bool,
    live: &'a dyn Live,
    indexed_to: i64,
    salt: u64,
    lowest: i64,
    at_most: usize,
    /// The entry of the receipt, once it was looked at: it comes before all others, and only once.
    shown: Cell<Option<Seq>>,
    /// Entries, and what segments cost in such.
    looked: Cell<usize>,
    found: RefCell<Found>,
}

/// Whether to look on.
type Go = ControlFlow<()>;

impl<'a> Search<'a> {
    fn new(
        reader: &'a Reader,
        query: &'a PageQuery,
        receipts: Receipts,
        live: &'a dyn Live,
        at_most: usize,
    ) -> Result<Self, StoreError> {
        let text = query.search.as_deref().unwrap_or_default();
        let mut search = Self {
            reader,
            query,
            receipts,
            receipt: text.parse().ok().map(|receipt| receipts.seq(receipt)),
            plain: !text.contains(|c: char| c == '"' || c == '\\' || c.is_control()),
            live,
            indexed_to: number(&reader.connection, INDEXED_TO)?.unwrap_or(0),
            salt: number(&reader.connection, SALT)?.unwrap_or(0).cast_unsigned(),
            lowest: 0,
            at_most,
            shown: Cell::new(None),
            looked: Cell::new(0),
            found: RefCell::default(),
        };
        search.lowest = search.lowest()?;
        Ok(search)
    }

    fn run(self) -> Result<Found, StoreError> {
        if let Some(seq) = self.receipt.filter(|_| self.query.before.is_none())
            && self.look(seq)?.is_break()
        {
            return Ok(self.found.into_inner());
        }
        self.shown.set(self.receipt);
        let mut before = self.first_before()?;
        if self.needs_log() {
            if self.look_through_log(before)?.is_break() {
                return Ok(self.found.into_inner());
            }
            before = before.min(self.indexed_to + 1);
        }
        loop {
            let candidates = self.candidates(before)?;
            let Some(last) = candidates.last() else { break };
            before = last.0;
            for seq in candidates {
                if seq.0 < self.lowest || self.look(seq)?.is_break() {
                    return Ok(self.found.into_inner());
                }
            }
        }
        Ok(self.found.into_inner())
    }

    /// Whether what is sought is found by terms, and so beyond the watermark only in the log itself; or by nothing.
    fn needs_log(&self) -> bool {
        let query = self.query;
        query.search.is_some()
            || (query.state.is_none() && query.held.is_none() && query.outcome.is_none())
    }

    /// Looks at every entry below `before`, down to the watermark; or to the end if nothing else tells which may fit.
    fn look_through_log(&self, before: i64) -> Result<Go, StoreError> {
        let by_term = self.query.search.is_some() || self.query.route.is_some();
        let above = if by_term { self.indexed_to } else { 0 };
        let mut statement = self.reader.connection.prepare_cached(&format!(
            "SELECT {STORED} {JOINED} WHERE l.seq < ? AND l.seq > ? ORDER BY l.seq DESC"
        ))?;
        let mut rows = statement.query([before, above.max(self.lowest - 1)])?;
        while let Some(row) = rows.next()? {
            if self.consider(row)?.is_break() {
                return Ok(Go::Break(()));
            }
        }
        Ok(if by_term { Go::Continue(()) } else { Go::Break(()) })
    }

    fn look(&self, seq: Seq) -> Result<Go, StoreError> {
        let mut statement = self
            .reader
            .connection
            .prepare_cached(&format!("SELECT {STORED} {JOINED} WHERE l.seq = ?"))?;
        let mut rows = statement.query([seq.0])?;
        match rows.next()? {
            Some(row) => self.consider(row),
            // It is gone; its key may be known for long.
            None => Ok(self.looked_at(seq)),
        }
    }

    /// Keeps the entry if it fits. Ends when the page is full or many were looked at.
    fn consider(&self, row: &SqlRow<'_>) -> Result<Go, StoreError> {
        let stored = Stored::read(row)?;
        if self.shown.get() != Some(stored.seq) && self.may_fit(&stored) {
            let mut summary = stored.summary(self.receipts);
            self.live.show(&mut summary);
            if self.fits(&summary) {
                let mut found = self.found.borrow_mut();
                found.entries.push(summary);
                if found.entries.len() == self.at_most {
                    return Ok(Go::Break(()));
                }
            }
        }
        Ok(self.looked_at(stored.seq))
    }

    fn looked_at(&self, seq: Seq) -> Go {
        let mut found = self.found.borrow_mut();
        found.looked += 1;
        self.looked.set(self.looked.get() + 1);
        if self.looked.get() < LOOKS {
            return Go::Continue(());
        }
        found.looked_down_to = Some(seq);
        Go::Break(())
    }

    /// The next entries below `before` that may fit, newest first; none when there are no more.
    fn candidates(&self, before: i64) -> Result<Vec<Seq>, StoreError> {
        let query = self.query;
        if let Some(text) = &query.search {
            return self.sought(Sought::Text(self.salt, text), before);
        }
        if let Some(state) = query.state.or(query.held.map(|_| State::Held))
            && state != State::Closed
        {
            return Ok(self.live.in_state(state, before, PORTION as usize));
        }
        if let Some(outcome) = query.outcome {
            return self.seqs(
                "SELECT seq FROM state WHERE outcome = ?3 AND seq < ?1 ORDER BY seq DESC LIMIT ?2",
                params![before, PORTION, outcome.word()],
            );
        }
        if query.state == Some(State::Closed) {
            return self.seqs(
                "SELECT seq FROM state WHERE state = 'closed' AND seq < ?1 ORDER BY seq DESC LIMIT ?2",
                params![before, PORTION],
            );
        }
        match &query.route {
            Some(route) => self.sought(Sought::Route(route), before),
            None => Ok(Vec::new()),
        }
    }

    /// Entries up to the watermark, segment by segment.
    fn sought(&self, sought: Sought<'_>, before: i64) -> Result<Vec<Seq>, StoreError> {
        let connection = &self.reader.connection;
        let first = Sought::first_segment(connection)?;
        let mut seqs = Vec::new();
        let mut segment = segment_of(before.min(self.indexed_to + 1) - 1);
        while segment >= first && seqs.len() < PORTION as usize {
            if self.looked.get() >= LOOKS {
                let looked_down_to = (segment + 1) * SEGMENT + 1;
                if seqs.is_empty() && looked_down_to > self.lowest {
                    self.found.borrow_mut().looked_down_to = Some(Seq(looked_down_to));
                }
                break;
            }
            let found = sought.in_segment(connection, segment)?;
            seqs.extend(found.into_iter().filter(|seq| *seq < before).map(Seq));
            self.looked.set(self.looked.get() + A_SEGMENT);
            segment -= 1;
        }
        seqs.truncate(PORTION as usize);
        Ok(seqs)
    }

    fn seqs(&self, sql: &str, of: &[&dyn rusqlite::ToSql]) -> Result<Vec<Seq>, StoreError> {
        let mut statement = self.reader.connection.prepare_cached(sql)?;
        let seqs = statement.query_map(of, |row| row.get(0).map(Seq))?;
        Ok(seqs.collect::<Result<_, _>>()?)
    }

    /// Looks at what needs no copy.
    fn may_fit(&self, stored: &Stored<'_>) -> bool {
        let record = &stored.record;
        if self.query.route.as_ref().is_some_and(|route| record.route() != route) {
            return false;
        }
        let Some(text) = &self.query.search else { return true };
        self.receipt == Some(stored.seq)
            || record.request_id() == text
            || record.key_text() == text
            || self.has_label(record.labels(), text)
    }

    fn has_label(&self, labels: &str, text: &str) -> bool {
        (!self.plain || labels.contains(text))
            && read_labels(labels)
                .is_some_and(|labels| labels.iter().any(|(_, value)| value == text))
    }

    fn fits(&self, summary: &EntrySummary) -> bool {
        let query = self.query;
        query.state.is_none_or(|state| summary.state == state)
            && query.outcome.is_none_or(|outcome| summary.outcome == Some(outcome))
            && query.held.is_none_or(|held| summary.held == Some(held))
            && query.followed_up.is_none_or(|done| summary.followed_up.is_some() == done)
            && query.received_from.is_none_or(|from| summary.received_at >= from)
            && query.received_until.is_none_or(|until| summary.received_at <= until)
    }

    /// Where to begin: below `before`, and not above the last entry that came in the time asked for.
    fn first_before(&self) -> Result<i64, StoreError> {
        let before = self.query.before.map_or(i64::MAX, |seq| seq.0);
        let Some(until) = self.query.received_until else { return Ok(before) };
        let hour = until.0.div_euclid(HOUR);
        let last = self.hour("max(last)", "hour <= ?", hour)?;
        // Beyond the watermark nothing is known of hours.
        if self.log_above(self.indexed_to, before)? {
            return Ok(before);
        }
        Ok(before.min(last.map_or(0, |last| last + 1)))
    }

    /// Below this nothing came in the time asked for.
    fn lowest(&self) -> Result<i64, StoreError> {
        let Some(from) = self.query.received_from else { return Ok(0) };
        let first = self.hour("min(first)", "hour >= ?", from.0.div_euclid(HOUR))?;
        Ok(first.unwrap_or(self.indexed_to + 1))
    }

    fn hour(&self, what: &str, which: &str, hour: i64) -> Result<Option<i64>, StoreError> {
        let sql = format!("SELECT {what} FROM hour WHERE {which}");
        Ok(self.reader.connection.query_row(&sql, [hour], |row| row.get(0))?)
    }

    /// Whether an entry that came in time may lie beyond the watermark.
    fn log_above(&self, indexed_to: i64, before: i64) -> Result<bool, StoreError> {
        let until = self.query.received_until.map_or(i64::MAX, |until| until.0);
        let mut statement = self
            .reader
            .connection
            .prepare_cached("SELECT request_id, record FROM log WHERE seq > ? AND seq < ?")?;
        let mut rows = statement.query([indexed_to, before])?;
        while let Some(row) = rows.next()? {
            if record(row, 0)?.received_at() <= until {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Candidates fetched at once.
const PORTION: i64 = 256;
/// Entries looked at before others have a turn: some milliseconds.
const LOOKS: usize = 2_000;
/// A segment in which nothing is found costs as much as so many entries.
const A_SEGMENT: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Appended, Caps, Store, StoreOptions, Synchronous, writer::tests::entry};

    struct Nothing;

    impl Live for Nothing {
        fn in_state(&self, _: State, _: i64, _: usize) -> Vec<Seq> {
            Vec::new()
        }

        fn show(&self, _: &mut EntrySummary) {}
    }

    #[tokio::test]
    async fn a_look_ends_soon_and_the_next_one_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("standin.db");
        let options = StoreOptions {
            accept_ephemeral: true,
            synchronous: Synchronous::NormalForTests,
            ..StoreOptions::new(path.clone())
        };
        let store = Store::open(options).unwrap();
        let caps = std::sync::Arc::new(Caps { open: u64::MAX, open_sum: None, per_customer: None });
        let count = 3 * LOOKS + 10;
        let all = (0..count).map(|key| {
            let mut entry = entry(key as u128);
            entry.caps = std::sync::Arc::clone(&caps);
            entry.route = if key % 1500 == 0 { "rare" } else { "checkout" }.into();
            store.append(entry)
        });
        for appended in futures_util::future::join_all(all).await {
            assert!(matches!(appended.unwrap(), Appended::New(_)));
        }
        let reader = Reader::open(&path).unwrap();
        let mut query = PageQuery { route: Some("rare".into()), ..PageQuery::default() };
        let (mut found, mut turns) = (Vec::new(), 0);
        loop {
            let look = reader.page(&query, store.handle.shared.receipts, &Nothing, 200).unwrap();
            assert!(look.looked <= LOOKS, "{}", look.looked);
            found.extend(look.entries.iter().map(|entry| entry.seq.0));
            turns += 1;
            match look.looked_down_to {
                Some(seq) => query.before = Some(seq),
                None => break,
            }
        }
        let rare: Vec<i64> = (1..=count as i64).rev().filter(|seq| seq % 1500 == 1).collect();
        assert_eq!(found, rare);
        assert!(turns >= 3, "{turns}");
        store.close().await;
    }
}
