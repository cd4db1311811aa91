//! The modes: `auto`, `forced` (with an end), `pass_through`; for all routes or one. Set by people, kept over restarts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::{
    store::{AuditLine, Store, StoreError},
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
pub struct Modes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: ArcSwap<Settings>,
    store: Store,
    /// One change at a time: what is remembered last is what acts.
    changing: tokio::sync::Mutex<()>,
    changes: tokio::sync::watch::Sender<u64>,
}

/// How long `forced` lasts when nobody says.
pub const FORCED_DEFAULT: Duration = Duration::from_secs(3600);
/// The longest time for `forced`.
pub const FORCED_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long whoever sets a mode waits for a store that failed.
const TAKING_BACK: Duration = Duration::from_secs(5);
/// Under this name the store remembers the settings.
const REMEMBERED: &str = "modes";

impl Modes {
    /// The modes as they were set before the last stop.
    pub async fn recall(store: Store) -> Result<Self, StoreError> {
        let remembered = store.recall(REMEMBERED).await?;
        let settings =
            remembered.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(Self(Arc::new(Inner {
            settings: ArcSwap::from_pointee(settings),
            store,
            changing: tokio::sync::Mutex::default(),
            changes: tokio::sync::watch::Sender::new(0),
        })))
    }

    /// The mode of a route now. Costs one load while nobody has set anything.
    pub fn of(&self, route: &str) -> Mode {
        let settings = self.0.settings.load();
        if settings.all.is_none() && settings.routes.is_empty() {
            return Mode::Auto;
        }
        settings.at(route, UnixMillis::now())
    }

    pub fn settings(&self) -> Arc<Settings> {
        self.0.settings.load_full()
    }

    /// Changes whenever a mode is set.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Sets the mode of all routes or one; durable and audited before it acts. `forced` always gets an end.
    pub async fn set(
        &self,
        route: Option<&str>,
        mode: Mode,
        for_time: Option<Duration>,
        who: &str,
        why: &str,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let since = UnixMillis::now();
        let until = match mode {
            Mode::Forced => {
                Some(since.plus(for_time.unwrap_or(FORCED_DEFAULT).min(FORCED_LONGEST)))
            }
            Mode::Auto | Mode::PassThrough => for_time.map(|span| since.plus(span)),
        };
        let setting = Setting { mode, until, who: who.to_owned(), why: why.to_owned(), since };
        let mut settings = Settings::clone(&self.settings());
        settings.put(route, setting);
        let line = AuditLine {
            at: since,
            who: who.to_owned(),
            what: format!("mode {}", mode.word()),
            on: route.map_or_else(|| "all".to_owned(), |route| format!("route {route}")),
            why: why.to_owned(),
        };
        if let Err(error) = self.decree(&settings, line.clone()).await {
            if matches!(error, StoreError::Failed(_)) {
                self.take_back(line).await;
            }
            return Err(error);
        }
        self.0.settings.store(Arc::new(settings));
        self.0.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Nobody knows whether a failed change is on the disk. What acts is written once more, so that a restart does not
    /// bring the change after all; the audit log says so.
    async fn take_back(&self, line: AuditLine) {
        let what = format!("{}: failed, not in force", line.what);
        let settings = self.settings();
        let back = self.decree(&settings, AuditLine { what, ..line });
        match tokio::time::timeout(TAKING_BACK, back).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "a failed change of mode may act after a restart")
            }
            Err(_) => {
                tracing::error!("a failed change of mode is taken back once the store works again")
            }
        }
    }

    async fn decree(&self, settings: &Settings, line: AuditLine) -> Result<(), StoreError> {
        let text = serde_json::to_string(settings).unwrap_or_default();
        self.0.store.decree(REMEMBERED, &text, line).await
    }
}

impl Mode {
    /// As it stands in API, CLI and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Forced => "forced",
            Self::PassThrough => "pass_through",
        }
    }
}

impl Settings {
    /// The mode of a route at a time.
    pub fn at(&self, route: &str, now: UnixMillis) -> Mode {
        let acts = |setting: &&Setting| setting.until.is_none_or(|until| now < until);
        let own = self.routes.get(route).filter(acts);
        own.or_else(|| self.all.as_ref().filter(acts)).map_or(Mode::Auto, |setting| setting.mode)
    }

    /// `auto` for everything, without an end, is the absence of a setting; for one route it is an exception.
    fn put(&mut self, route: Option<&str>, setting: Setting) {
        match route {
            Some(route) => {
                self.routes.insert(route.to_owned(), setting);
            }
            None if setting.mode == Mode::Auto => *self = Self::default(),
            None => self.all = Some(setting),
        }
        if self.all.is_none() {
            self.routes.retain(|_, setting| setting.mode != Mode::Auto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Accepting, Fault, Hook, StoreOptions};

    fn setting(mode: Mode, until: Option<i64>) -> Setting {
        Setting {
            mode,
            until: until.map(UnixMillis),
            who: "ann".into(),
            why: "test".into(),
            since: UnixMillis(0),
        }
    }

    #[test]
    fn a_routes_own_setting_wins_and_forced_ends_by_itself() {
        let mut settings = Settings::default();
        settings.put(None, setting(Mode::Forced, Some(100)));
        settings.put(Some("checkout"), setting(Mode::PassThrough, None));
        assert_eq!(settings.at("carts", UnixMillis(99)), Mode::Forced);
        assert_eq!(settings.at("carts", UnixMillis(100)), Mode::Auto);
        assert_eq!(settings.at("checkout", UnixMillis(99)), Mode::PassThrough);
    }

    #[test]
    fn auto_for_all_takes_every_setting_back() {
        let mut settings = Settings::default();
        settings.put(Some("checkout"), setting(Mode::PassThrough, None));
        settings.put(None, setting(Mode::Auto, None));
        assert_eq!(settings, Settings::default());
    }

    async fn store(folder: &std::path::Path) -> (Store, Hook) {
        let hook = Hook::default();
        let path = folder.join("standin.db");
        let options =
            StoreOptions { accept_ephemeral: true, hook: hook.clone(), ..StoreOptions::new(path) };
        (Store::open(options).unwrap(), hook)
    }

    #[tokio::test]
    async fn what_acts_is_what_a_restart_finds_with_its_line_of_audit_whatever_the_disk_does() {
        use Fault::{Full, LostBeforeCommit, None, UnknownAfterCommit};
        let folder = tempfile::tempdir().unwrap();
        let (store, hook) = store(folder.path()).await;
        let modes = Modes::recall(store.clone()).await.unwrap();
        modes.set(Some("checkout"), Mode::PassThrough, Option::None, "ann", "0").await.unwrap();
        let faults: [&[Fault]; 6] = [
            &[LostBeforeCommit],
            &[UnknownAfterCommit],
            &[Full, Full],
            &[None, LostBeforeCommit],
            &[None, UnknownAfterCommit],
            &[None, Full, Full],
        ];
        for (number, faults) in faults.iter().enumerate() {
            let (before, why) = (modes.settings(), format!("change {number}"));
            hook.fail_next(faults);
            let set = modes.set(Option::None, Mode::Forced, Option::None, "ann", &why).await;
            hook.fail_next(&[]);
            let mut accepting = store.accepting();
            accepting.wait_for(|accepting| *accepting == Accepting::Yes).await.unwrap();
            let acts = modes.settings();
            assert_eq!(*acts == *before, set.is_err(), "{faults:?}: {set:?}");
            let found = Modes::recall(store.clone()).await.unwrap().settings();
            assert_eq!(found, acts, "{faults:?}: {set:?}");
            let audit = store.audit_log(100).await.unwrap();
            let mine: Vec<&str> =
                audit.iter().filter(|line| line.why == why).map(|line| &*line.what).collect();
            let last_word = mine.first().copied();
            let expected =
                if set.is_ok() { "mode forced" } else { "mode forced: failed, not in force" };
            assert!(last_word.is_none_or(|word| word == expected), "{faults:?}: {mine:?}");
            assert!(set.is_err() || last_word.is_some(), "{faults:?}: no line of audit");
        }
    }
}
