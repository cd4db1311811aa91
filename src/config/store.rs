//! `[store]`: where entries are kept, how much of them and how long.

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// `[store]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// The SQLite file. It and its folder must be on a local disk that lives as long as the promises.
    pub path: PathBuf,
    /// No new entries once the file is this large.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub max_bytes: u64,
    /// How long closed entries are kept for support.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub retention: Duration,
    /// How long the keys of closed entries are remembered; at least the longest `expires`.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub dedupe_window: Duration,
    /// What to do on a disk that will not live (tmpfs, overlay, network file system).
    pub ephemeral: Ephemeral,
}

/// What a disk that will not live means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ephemeral {
    /// Proxy, but never stand in.
    #[default]
    Refuse,
    /// Stand in all the same: a restart of the machine may lose acknowledged requests.
    AcceptLoss,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("standin.db"),
            max_bytes: 10 << 30,
            retention: Duration::from_secs(30 * 24 * 3600),
            dedupe_window: Duration::from_secs(7 * 24 * 3600),
            ephemeral: Ephemeral::Refuse,
        }
    }
}
