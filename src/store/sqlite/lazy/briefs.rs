//! What a start needs of open entries, in blocks of 256: the beginnings of their records. A block that is not what was
//! written is not read: its entries are in the log.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::store::record::{Record, hash, part, split_part};

/// Entries of a block.
pub(in crate::store::sqlite) const BLOCK: i64 = 256;

/// The block in which an entry's brief is.
pub(in crate::store::sqlite) fn block_of(seq: i64) -> i64 {
    (seq - 1).div_euclid(BLOCK)
}

/// Adds the brief of an entry to its block.
pub(super) fn add(block: &mut Vec<u8>, seq: i64, record: &Record<'_>) {
    if block.is_empty() {
        block.extend_from_slice(&[0; SUM]);
    }
    block.push((seq - 1).rem_euclid(BLOCK) as u8);
    part(block, record.beginning());
}

/// Writes blocks, the first of which is `first`; one without an entry is none.
pub(super) fn write(
    step: &Transaction<'_>,
    first: i64,
    blocks: &[Vec<u8>],
) -> Result<(), rusqlite::Error> {
    for (id, block) in (first..).zip(blocks) {
        put(step, id, block.clone())?;
    }
    Ok(())
}

fn put(step: &Transaction<'_>, id: i64, mut block: Vec<u8>) -> Result<(), rusqlite::Error> {
    if block.len() <= SUM {
        step.prepare_cached("DELETE FROM brief_block WHERE id = ?")?.execute([id])?;
        return Ok(());
    }
    let sum = sum(id, &block[SUM..]);
    block[..SUM].copy_from_slice(&sum);
    step.prepare_cached("INSERT OR REPLACE INTO brief_block (id, briefs) VALUES (?, ?)")?
        .execute(params![id, block])?;
    Ok(())
}

/// Removes briefs of one block: an entry that is gone must not be found again by a start.
pub(in crate::store::sqlite) fn remove(
    step: &Transaction<'_>,
    id: i64,
    gone: &[i64],
) -> Result<(), rusqlite::Error> {
    let Some(block) = stored(step, id)? else { return Ok(()) };
    // A damaged block stays as it is: a start reads the log.
    let Some(entries) = entries(id, &block) else { return Ok(()) };
    let mut left = Vec::with_capacity(block.len());
    for (seq, brief) in entries {
        if !gone.contains(&seq) {
            add(&mut left, seq, &Record::of("", brief));
        }
    }
    put(step, id, left)
}

/// The block's bytes, if there is one.
pub(in crate::store::sqlite) fn stored(
    connection: &Connection,
    id: i64,
) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    let sql = "SELECT briefs FROM brief_block WHERE id = ?";
    connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()
}

/// Numbers and briefs of a block in their order; None if it is damaged.
pub(in crate::store::sqlite) fn entries(id: i64, block: &[u8]) -> Option<Vec<(i64, &[u8])>> {
    let (written, mut rest) = block.split_first_chunk::<SUM>()?;
    if *written != sum(id, rest) {
        return None;
    }
    let mut entries = Vec::with_capacity(BLOCK as usize);
    while let Some((place, behind)) = rest.split_first() {
        let brief;
        (brief, rest) = split_part(behind).0?;
        entries.push((id * BLOCK + 1 + i64::from(*place), brief));
    }
    Some(entries)
}

fn sum(id: i64, briefs: &[u8]) -> [u8; SUM] {
    hash(id.cast_unsigned(), briefs).to_le_bytes()
}

const SUM: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn block(id: i64, seqs: &[i64]) -> Vec<u8> {
        let mut block = Vec::new();
        for seq in seqs {
            add(&mut block, *seq, &Record::of("", format!("a record of {seq}").as_bytes()));
        }
        let sum = sum(id, &block[SUM..]);
        block[..SUM].copy_from_slice(&sum);
        block
    }

    #[test]
    fn a_block_gives_back_its_entries_and_none_of_them_once_a_bit_has_changed() {
        let seqs = [257, 258, 300, 512];
        let right = block(1, &seqs);
        let read: Vec<i64> = entries(1, &right).unwrap().iter().map(|(seq, _)| *seq).collect();
        assert_eq!(read, seqs);
        for bit in 0..right.len() * 8 {
            let mut wrong = right.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(entries(1, &wrong), None, "bit {bit}");
        }
        for length in 0..right.len() {
            assert_eq!(entries(1, &right[..length]), None, "{length} bytes");
        }
        assert_eq!(entries(2, &right), None, "another block's");
    }

    #[test]
    fn what_is_removed_is_gone_and_a_block_without_entries_is_none() {
        let mut file = Connection::open_in_memory().unwrap();
        file.execute_batch(include_str!("../../schema/0004.sql")).unwrap();
        let step = file.transaction().unwrap();
        write(&step, 1, &[block(1, &[257, 258, 300]), Vec::new()]).unwrap();
        let left = |step: &Transaction<'_>| {
            let block = stored(step, 1).unwrap()?;
            Some(entries(1, &block).unwrap().iter().map(|(seq, _)| *seq).collect::<Vec<_>>())
        };
        remove(&step, 1, &[258, 511]).unwrap();
        assert_eq!(left(&step), Some(vec![257, 300]));
        remove(&step, 1, &[257, 300]).unwrap();
        assert_eq!(left(&step), None);
        remove(&step, 1, &[257]).unwrap();
        assert_eq!(stored(&step, 2).unwrap(), None);
    }
}
