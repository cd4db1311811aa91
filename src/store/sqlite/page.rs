//! Pages of entries: exact, newest first, with what is not yet indexed found in the log itself.

use rusqlite::{Row as SqlRow, params};

use super::{
    lazy::{HOUR, INDEXED_TO, SEGMENT, route_term, segment_of, term},
    read::{Reader, SUMMARY, summary},
    start::number,
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
}

impl Reader {
    /// Looks from the newest entry below `before` on, at the entries that the most selective filter leaves, until
    /// `at_most` fit. A page that looked at very many ends early and says where.
    pub(in crate::store) fn page(
        &self,
        query: &PageQuery,
        receipts: Receipts,
        live: &dyn Live,
        at_most: usize,
    ) -> Result<Found, StoreError> {
        // One transaction: what the index tables say and what the log says is of one moment.
        let snapshot = self.connection.unchecked_transaction()?;
        let search = Search { reader: self, query, receipts, live };
        let mut found = Found::default();
        let mut looked = 0;
        let mut before = search.first_before()?;
        let lowest = search.lowest()?;
        loop {
            let candidates = search.candidates(before)?;
            let Some(last) = candidates.last() else { break };
            before = last.0;
            for seq in candidates {
                if seq.0 < lowest {
                    return Ok(found);
                }
                looked += 1;
                if let Some(summary) = search.look(seq)? {
                    found.entries.push(summary);
                    if found.entries.len() == at_most {
                        return Ok(found);
                    }
                }
            }
            if looked >= LOOKS {
                found.looked_down_to = Some(Seq(before));
                break;
            }
        }
        drop(snapshot);
        Ok(found)
    }
}

struct Search<'a> {
    reader: &'a Reader,
    query: &'a PageQuery,
    receipts: Receipts,
    live: &'a dyn Live,
}

impl Search<'_> {
    /// The next entries below `before` that may fit, newest first; none when there are no more.
    fn candidates(&self, before: i64) -> Result<Vec<Seq>, StoreError> {
        let query = self.query;
        if let Some(text) = &query.search {
            let receipt = text.parse().ok().map(|receipt| self.receipts.seq(receipt));
            let mut seqs = self.with_term(&term(text), before)?;
            if let Some(seq) = receipt.filter(|seq| seq.0 < before)
                && let Err(at) = seqs.binary_search_by(|other| seq.cmp(other))
            {
                seqs.insert(at, seq);
            }
            return Ok(seqs);
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
        if let Some(route) = &query.route {
            return self.with_term(&route_term(route), before);
        }
        self.in_log(before, 0)
    }

    /// Entries that are found by a term: through the log down to the watermark, then segment by segment.
    fn with_term(&self, term: &[u8], before: i64) -> Result<Vec<Seq>, StoreError> {
        let indexed_to = number(&self.reader.connection, INDEXED_TO)?.unwrap_or(0);
        if before > indexed_to + 1 {
            let tail = self.in_log(before, indexed_to)?;
            if !tail.is_empty() {
                return Ok(tail);
            }
        }
        let mut seqs = Vec::new();
        let mut segment = segment_of(before.min(indexed_to + 1) - 1);
        while segment >= 0 && (seqs.len() as i64) < PORTION {
            seqs.extend(self.seqs(
                "SELECT seq FROM term WHERE segment = ?3 AND text = ?4 AND seq < ?1
                 ORDER BY seq DESC LIMIT ?2",
                params![before, SEGMENT, segment, term],
            )?);
            segment -= 1;
        }
        Ok(seqs)
    }

    fn in_log(&self, before: i64, above: i64) -> Result<Vec<Seq>, StoreError> {
        self.seqs(
            "SELECT seq FROM log WHERE seq < ?1 AND seq > ?3 ORDER BY seq DESC LIMIT ?2",
            params![before, PORTION, above],
        )
    }

    fn seqs(&self, sql: &str, of: &[&dyn rusqlite::ToSql]) -> Result<Vec<Seq>, StoreError> {
        let mut statement = self.reader.connection.prepare_cached(sql)?;
        let seqs = statement.query_map(of, |row| row.get(0).map(Seq))?;
        Ok(seqs.collect::<Result<_, _>>()?)
    }

    /// The entry, if it is there and fits.
    fn look(&self, seq: Seq) -> Result<Option<EntrySummary>, StoreError> {
        let mut statement = self.reader.connection.prepare_cached(&format!(
            "SELECT {SUMMARY} FROM log l LEFT JOIN state s ON s.seq = l.seq WHERE l.seq = ?"
        ))?;
        let mut rows = statement.query([seq.0])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        if !self.may_fit(row)? {
            return Ok(None);
        }
        let mut summary = summary(row, self.receipts)?;
        self.live.show(&mut summary);
        Ok(self.fits(&summary).then_some(summary))
    }

    /// Looks at what needs no copy.
    fn may_fit(&self, row: &SqlRow<'_>) -> Result<bool, rusqlite::Error> {
        if let Some(route) = &self.query.route
            && row.get_ref(3)?.as_str()? != route
        {
            return Ok(false);
        }
        let Some(text) = &self.query.search else { return Ok(true) };
        let receipt = text.parse().ok().map(|receipt| self.receipts.seq(receipt));
        Ok(receipt == Some(Seq(row.get(0)?))
            || row.get_ref(1)?.as_str()? == text
            || row.get_ref(16)?.as_str()? == text
            || read_labels(row.get_ref(14)?.as_str()?)
                .is_some_and(|labels| labels.iter().any(|(_, value)| value == text)))
    }

    fn fits(&self, summary: &EntrySummary) -> bool {
        let query = self.query;
        query.state.is_none_or(|state| summary.state == state)
            && query.outcome.is_none_or(|outcome| summary.outcome == Some(outcome))
            && query.held.is_none_or(|held| summary.held == Some(held))
            && query.received_from.is_none_or(|from| summary.received_at >= from)
            && query.received_until.is_none_or(|until| summary.received_at <= until)
    }

    /// Where to begin: below `before`, and not above the last entry that came in the time asked for.
    fn first_before(&self) -> Result<i64, StoreError> {
        let before = self.query.before.map_or(i64::MAX, |seq| seq.0);
        let Some(until) = self.query.received_until else { return Ok(before) };
        let hour = until.0.div_euclid(HOUR);
        let (last, indexed_to) = (self.hour("max(last)", "hour <= ?", hour)?, self.indexed_to()?);
        // Beyond the watermark nothing is known of hours.
        if self.log_above(indexed_to, before)? {
            return Ok(before);
        }
        Ok(before.min(last.map_or(0, |last| last + 1)))
    }

    /// Below this nothing came in the time asked for.
    fn lowest(&self) -> Result<i64, StoreError> {
        let Some(from) = self.query.received_from else { return Ok(0) };
        let first = self.hour("min(first)", "hour >= ?", from.0.div_euclid(HOUR))?;
        Ok(first.unwrap_or(self.indexed_to()? + 1))
    }

    fn hour(&self, what: &str, which: &str, hour: i64) -> Result<Option<i64>, StoreError> {
        let sql = format!("SELECT {what} FROM hour WHERE {which}");
        Ok(self.reader.connection.query_row(&sql, [hour], |row| row.get(0))?)
    }

    fn indexed_to(&self) -> Result<i64, StoreError> {
        Ok(number(&self.reader.connection, INDEXED_TO)?.unwrap_or(0))
    }

    /// Whether an entry that came in time may lie beyond the watermark.
    fn log_above(&self, indexed_to: i64, before: i64) -> Result<bool, StoreError> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM log WHERE seq > ?1 AND seq < ?2 AND received_at <= ?3)";
        let until = self.query.received_until.map_or(i64::MAX, |until| until.0);
        let of = params![indexed_to, before, until];
        Ok(self.reader.connection.query_row(sql, of, |row| row.get(0))?)
    }
}

/// Candidates fetched at once.
const PORTION: i64 = 256;
/// Candidates looked at for one page: well under a second.
const LOOKS: usize = 50_000;
