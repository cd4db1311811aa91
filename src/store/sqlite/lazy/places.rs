//! By which texts the entries of a segment are found. A place is a hash and a number: what is found is compared with the
//! entry itself, and a place whose entry is gone finds nothing.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::SEGMENT;
use crate::store::{
    codec::read_labels,
    record::{Record, hash},
};

/// The places of a segment under construction.
#[derive(Debug)]
pub(super) struct Places {
    parts: Vec<Vec<u64>>,
    /// The one that came last is the last one: the next entry is nearly always its.
    routes: Vec<(String, Vec<u8>)>,
}

/// Rows of one segment's texts: a search reads one of them.
pub(super) const PARTS: usize = 64;

impl Default for Places {
    fn default() -> Self {
        Self { parts: vec![Vec::new(); PARTS], routes: Vec::new() }
    }
}

impl Places {
    /// `place` is the entry's within its segment.
    pub(super) fn take(&mut self, salt: u64, place: u16, record: &Record<'_>) {
        let (id, key) = (record.request_id(), record.key_text());
        self.add(salt, place, id);
        if key != id {
            self.add(salt, place, key);
        }
        for (_, value) in read_labels(record.labels()).unwrap_or_default() {
            self.add(salt, place, &value);
        }
        self.bits_of(record.route())[usize::from(place) / 8] |= 1 << (place % 8);
    }

    fn bits_of(&mut self, route: &str) -> &mut [u8] {
        let known = self.routes.iter().rposition(|(known, _)| known == route);
        if known.is_none() {
            self.routes.push((route.to_owned(), vec![0; BITS]));
        }
        let last = self.routes.len() - 1;
        self.routes.swap(known.unwrap_or(last), last);
        &mut self.routes[last].1
    }

    fn add(&mut self, salt: u64, place: u16, text: &str) {
        let (part, rest) = split(hash(salt, text.as_bytes()));
        self.parts[part].push(rest << 16 | u64::from(place));
    }

    pub(super) fn write_parts(
        &self,
        step: &Transaction<'_>,
        segment: i64,
        parts: std::ops::Range<usize>,
    ) -> Result<(), rusqlite::Error> {
        let sql = "INSERT OR REPLACE INTO term_block (id, places) VALUES (?, ?)";
        let mut insert = step.prepare_cached(sql)?;
        for part in parts {
            let bytes: Vec<u8> =
                self.parts[part].iter().flat_map(|place| place.to_le_bytes()).collect();
            insert.execute(params![id(segment, part), bytes])?;
        }
        Ok(())
    }

    pub(super) fn write_routes(
        &self,
        step: &Transaction<'_>,
        segment: i64,
    ) -> Result<(), rusqlite::Error> {
        let sql = "INSERT OR REPLACE INTO route_block (segment, route, places) VALUES (?, ?, ?)";
        let mut insert = step.prepare_cached(sql)?;
        for (route, bits) in &self.routes {
            insert.execute(params![segment, route, bits])?;
        }
        Ok(())
    }
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::sqlite) enum Sought<'a> {
    /// With the store's salt.
    Text(u64, &'a str),
    Route(&'a str),
}

impl Sought<'_> {
    /// Numbers of a segment's entries that may be what is sought, the newest first.
    pub(in crate::store::sqlite) fn in_segment(
        self,
        connection: &Connection,
        segment: i64,
    ) -> Result<Vec<i64>, rusqlite::Error> {
        let mut places: Vec<u16> = match self {
            Self::Text(salt, text) => {
                let (part, wanted) = split(hash(salt, text.as_bytes()));
                let sql = "SELECT places FROM term_block WHERE id = ?";
                let bytes = blob(connection, sql, [id(segment, part)])?;
                let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
                words.filter(|word| word >> 16 == wanted).map(|word| word as u16).collect()
            }
            Self::Route(route) => {
                let sql = "SELECT places FROM route_block WHERE segment = ? AND route = ?";
                let bits = blob(connection, sql, params![segment, route])?;
                let is_set = |place: &u16| {
                    bits.get(usize::from(*place) / 8)
                        .is_some_and(|byte| byte & 1 << (place % 8) != 0)
                };
                (0..SEGMENT as u16).filter(is_set).collect()
            }
        };
        places.sort_unstable_by(|one, two| two.cmp(one));
        places.dedup();
        Ok(places.into_iter().map(|place| segment * SEGMENT + 1 + i64::from(place)).collect())
    }

    /// The first segment of which there are places.
    pub(in crate::store::sqlite) fn first_segment(
        connection: &Connection,
    ) -> Result<i64, rusqlite::Error> {
        let sql = "SELECT coalesce(min(id), 0) FROM term_block";
        let first: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(first.div_euclid(PARTS as i64))
    }
}

fn blob(
    connection: &Connection,
    sql: &str,
    of: impl rusqlite::Params,
) -> Result<Vec<u8>, rusqlite::Error> {
    let found = connection.prepare_cached(sql)?.query_row(of, |row| row.get(0)).optional()?;
    Ok(found.unwrap_or_default())
}

/// Deletes the places of segments.
pub(super) fn delete(
    step: &Transaction<'_>,
    first: i64,
    beyond: i64,
) -> Result<(), rusqlite::Error> {
    let of_terms = "DELETE FROM term_block WHERE id >= ? AND id < ?";
    step.prepare_cached(of_terms)?.execute([id(first, 0), id(beyond, 0)])?;
    let of_routes = "DELETE FROM route_block WHERE segment >= ? AND segment < ?";
    step.prepare_cached(of_routes)?.execute([first, beyond])?;
    Ok(())
}

fn id(segment: i64, part: usize) -> i64 {
    segment.saturating_mul(PARTS as i64).saturating_add(part as i64)
}

/// In which part a hash is found, and 48 bits of the rest.
fn split(hash: u64) -> (usize, u64) {
    ((hash >> 58) as usize, hash >> 10 & 0xffff_ffff_ffff)
}

/// Bytes with a bit for each entry of a segment.
const BITS: usize = SEGMENT as usize / 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::writer::tests::entry;

    fn taken(places: &mut Places, place: u16, route: &str, labels: &[&str]) {
        let mut entry = entry(u128::from(place));
        entry.route = Arc::from(route);
        entry.labels = labels.iter().map(|text| (String::new(), (*text).to_owned())).collect();
        let prepared = entry.draft(&entry.home()).prepare().unwrap();
        places.take(7, place, &Record::of(&prepared.request_id, &prepared.record));
    }

    #[test]
    fn entries_are_found_by_their_texts_and_their_route_newest_first() {
        let mut file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../../schema/0004.sql")).unwrap();
        let mut places = Places::default();
        taken(&mut places, 0, "a", &["c-1", "c-1", "0"]);
        taken(&mut places, 9, "b", &["c-1"]);
        taken(&mut places, 16_383, "a", &["\u{fc}", &"x".repeat(300)]);
        let step = file.transaction().unwrap();
        places.write_parts(&step, 2, 0..PARTS).unwrap();
        places.write_routes(&step, 2).unwrap();
        let first = 2 * SEGMENT + 1;
        let found = |sought: Sought<'_>| sought.in_segment(&step, 2).unwrap();
        assert_eq!(found(Sought::Text(7, "c-1")), [first + 9, first]);
        assert_eq!(found(Sought::Text(7, "0")), [first]);
        assert_eq!(found(Sought::Text(7, "\u{fc}")), [first + 16_383]);
        assert_eq!(found(Sought::Text(7, &"x".repeat(300))), [first + 16_383]);
        assert_eq!(found(Sought::Text(7, "c-")), [0_i64; 0]);
        assert_eq!(found(Sought::Text(8, "c-1")), [0_i64; 0], "another store's");
        assert_eq!(found(Sought::Route("a")), [first + 16_383, first]);
        assert_eq!(found(Sought::Route("c-1")), [0_i64; 0]);
        assert_eq!(Sought::Text(7, "c-1").in_segment(&step, 1).unwrap(), [0_i64; 0]);
        assert_eq!(Sought::first_segment(&step).unwrap(), 2);
        delete(&step, 2, 3).unwrap();
        assert_eq!(found(Sought::Text(7, "c-1")), [0_i64; 0]);
    }
}
