//! What is added up over entries: by hour their numbers, by day and route their count and amount.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Transaction, params};

use super::HOUR;
use crate::store::{plan::DAY, record::Record};

#[derive(Debug, Default)]
pub(in crate::store::sqlite) struct Sums {
    hours: BTreeMap<i64, (i64, i64)>,
    volumes: BTreeMap<(i64, Arc<str>), (i64, i64)>,
    /// Of the entry before: the next one nearly always counts there too.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    hour: i64,
    numbers: (i64, i64),
    route: Arc<str>,
    volume: (i64, i64),
}

impl Sums {
    pub(in crate::store::sqlite) fn add(&mut self, seq: i64, record: &Record<'_>) {
        let (hour, route) = (record.received_at().div_euclid(HOUR), record.route());
        if self.last.as_ref().is_none_or(|last| last.hour != hour || *last.route != *route) {
            self.settle();
        }
        let last = self.last.get_or_insert_with(|| Last {
            hour,
            numbers: (seq, seq),
            route: route.into(),
            volume: (0, 0),
        });
        last.numbers = (last.numbers.0.min(seq), last.numbers.1.max(seq));
        last.volume.0 += 1;
        last.volume.1 = last.volume.1.saturating_add(record.amount());
    }

    fn settle(&mut self) {
        let Some(last) = self.last.take() else { return };
        let hour = self.hours.entry(last.hour).or_insert(last.numbers);
        *hour = (hour.0.min(last.numbers.0), hour.1.max(last.numbers.1));
        let day = (last.hour * HOUR).div_euclid(DAY);
        let volume = self.volumes.entry((day, last.route)).or_default();
        volume.0 += last.volume.0;
        volume.1 = volume.1.saturating_add(last.volume.1);
    }

    pub(super) fn write(&mut self, step: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        self.settle();
        for (hour, (first, last)) in &self.hours {
            step.prepare_cached(
                "INSERT INTO hour (hour, first, last) VALUES (?1, ?2, ?3)
                 ON CONFLICT (hour) DO UPDATE SET first = min(first, ?2), last = max(last, ?3)",
            )?
            .execute(params![hour, first, last])?;
        }
        self.write_volumes(step)
    }

    /// An entry that goes before its segment is whole takes its volume along otherwise.
    pub(in crate::store::sqlite) fn write_volumes(
        &mut self,
        step: &Transaction<'_>,
    ) -> Result<(), rusqlite::Error> {
        self.settle();
        for ((day, route), (accepted, amount)) in &self.volumes {
            let sql = "SELECT amount FROM volume WHERE day = ? AND route = ?";
            let before: i64 = step
                .prepare_cached(sql)?
                .query_row(params![day, &**route], |row| row.get(0))
                .unwrap_or(0);
            step.prepare_cached(
                "INSERT INTO volume (day, route, accepted, amount) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (day, route) DO UPDATE SET accepted = accepted + ?3, amount = ?4",
            )?
            .execute(params![
                day,
                &**route,
                accepted,
                before.saturating_add(*amount)
            ])?;
        }
        Ok(())
    }

    /// Day, route, count, amount.
    pub(in crate::store::sqlite) fn volumes(
        mut self,
    ) -> impl Iterator<Item = (i64, Arc<str>, i64, i64)> {
        self.settle();
        self.volumes.into_iter().map(|((day, route), (count, amount))| (day, route, count, amount))
    }
}
