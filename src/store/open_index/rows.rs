//! Open entries by number: in blocks of neighbours, because most of what is open was appended in a row. A block is about
//! as large as its entries, where a tree of single entries would be half empty.

use std::collections::BTreeMap;

use super::Row;

#[derive(Debug, Default)]
pub(super) struct Rows {
    blocks: BTreeMap<i64, Box<Block>>,
    len: usize,
}

#[derive(Debug, Default)]
struct Block {
    rows: [Option<Row>; BLOCK as usize],
    len: usize,
}

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, seq: i64) -> Option<&Row> {
        self.blocks.get(&block(seq))?.rows[place(seq)].as_ref()
    }

    pub(super) fn contains(&self, seq: i64) -> bool {
        self.get(seq).is_some()
    }

    pub(super) fn insert(&mut self, row: Row) {
        let seq = row.seq;
        let block = self.blocks.entry(block(seq)).or_default();
        if block.rows[place(seq)].replace(row).is_none() {
            block.len += 1;
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, seq: i64) -> Option<Row> {
        let number = block(seq);
        let block = self.blocks.get_mut(&number)?;
        let row = block.rows[place(seq)].take()?;
        block.len -= 1;
        self.len -= 1;
        if block.len == 0 {
            self.blocks.remove(&number);
        }
        Some(row)
    }

    pub(super) fn first(&self) -> Option<&Row> {
        self.blocks.values().next()?.rows.iter().flatten().next()
    }

    /// Those from `from` on, in their order.
    pub(super) fn up_from(&self, from: i64) -> impl Iterator<Item = &Row> {
        self.blocks
            .range(block(from)..)
            .flat_map(|(_, block)| block.rows.iter().flatten())
            .filter(move |row| row.seq >= from)
    }

    /// Those below `before`, the last one first.
    pub(super) fn down_from(&self, before: i64) -> impl Iterator<Item = &Row> {
        self.blocks
            .range(..=block(before))
            .rev()
            .flat_map(|(_, block)| block.rows.iter().rev().flatten())
            .filter(move |row| row.seq < before)
    }
}

fn block(seq: i64) -> i64 {
    seq.div_euclid(BLOCK)
}

fn place(seq: i64) -> usize {
    seq.rem_euclid(BLOCK) as usize
}

const BLOCK: i64 = 16;
