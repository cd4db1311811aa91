//! The backups of an upstream: who is asked in its stead, in order, and how that went.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use crate::config::Config;

/// See the module. Only upstreams that have any have one.
#[derive(Debug)]
pub struct Backups {
    /// Positions among all upstreams: its own backups, each followed by theirs, nobody twice.
    pub order: Vec<usize>,
    /// Requests that a backup answered.
    pub answered: Count,
    /// Requests that a backup may have applied without an answer.
    pub in_doubt: Count,
    /// Requests that reached no backup either.
    pub nobody: Count,
}

/// Counts over reloads.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Backups {
    /// Of the upstream of that name, in a configuration that was checked.
    pub(super) fn of(name: &str, config: &Config, before: Option<&Self>) -> Option<Self> {
        let order: Vec<usize> = config
            .backups_of(name)
            .iter()
            .filter_map(|name| config.upstream.keys().position(|other| other == name))
            .collect();
        let count = |of: fn(&Self) -> &Count| before.map(of).cloned().unwrap_or_default();
        (!order.is_empty()).then(|| Self {
            order,
            answered: count(|before| &before.answered),
            in_doubt: count(|before| &before.in_doubt),
            nobody: count(|before| &before.nobody),
        })
    }
}
