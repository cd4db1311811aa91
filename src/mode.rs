//! The modes: `auto`, `forced` (with an end), `pass_through`; for all routes or one. Set by people, kept over restarts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    store::{Store, StoreError},
    time::UnixMillis,
};

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    #[default]
    Auto,
    /// Stand in for everything that may be; automatic replay pauses.
    Forced,
    /// Make no new entries.
    PassThrough,
}

/// A mode as a person set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub mode: Mode,
    /// `forced` always has an end; after it the mode is `auto` again.
    pub until: Option<UnixMillis>,
    pub who: String,
    pub why: String,
    pub since: UnixMillis,
}

/// All settings: for everything, and per route (a route's own setting wins).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub all: Option<Setting>,
    pub routes: BTreeMap<String, Setting>,
}

/// Handle; cheap to clone.
#[derive(Clone, Debug)]
pub struct Modes {
    #[expect(dead_code, reason = "contract")]
    settings: Arc<arc_swap::ArcSwap<Settings>>,
    #[expect(dead_code, reason = "contract")]
    store: Option<Store>,
}

/// Default and longest time of `forced`.
pub const FORCED_DEFAULT: Duration = Duration::from_secs(3600);
pub const FORCED_LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Modes {
    /// The mode of a route now.
    pub fn of(&self, _route: &str) -> Mode {
        Mode::Auto
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Sets the mode of all routes or one; durable and audited before it acts. `forced` without an end gets the default one.
    pub async fn set(
        &self,
        _route: Option<&str>,
        _mode: Mode,
        _for_time: Option<Duration>,
        _who: &str,
        _why: &str,
    ) -> Result<(), StoreError> {
        Ok(())
    }
}
