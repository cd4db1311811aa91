//! Takes up a changed configuration while running: checked whole first, refused whole if wrong.
//!
//! Upstreams and routes change; the rest of a configuration is what the process was built with, and needs a restart. A
//! request ends under the configuration it began with.

mod file;

use std::{path::PathBuf, sync::Arc};

use tokio::sync::{mpsc, oneshot, watch};

use self::file::FileWatch;
use crate::{
    config::{Config, Difference},
    failover::Shared,
    router::{LiveRoutes, RouteFault},
    stand_in::answer::AnswerFault,
    store::{AuditLine, Store},
    telemetry::Counters,
    time::UnixMillis,
};

/// Where the configuration comes from.
pub struct Source {
    file: FileWatch,
    load: Box<Load>,
}

/// Reads and checks a configuration, arguments of the command line included; the faults in words.
type Load = dyn Fn() -> Result<Config, String> + Send + Sync;

impl Source {
    /// To be made before the file is read for the first time: what changes from now on is noticed.
    pub fn new(
        path: PathBuf,
        load: impl Fn() -> Result<Config, String> + Send + Sync + 'static,
    ) -> Self {
        Self { file: FileWatch::new(path), load: Box::new(load) }
    }
}

/// Asks for a reload, and knows how the last one went. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reload {
    asked: mpsc::Sender<Asked>,
    state: watch::Receiver<ReloadState>,
}

/// What is loaded, and how the last attempt to change it went.
#[derive(Clone, Debug)]
pub struct ReloadState {
    /// None: standin was started without a file.
    pub path: Option<PathBuf>,
    /// 1 at start, one more with each reload that changed something.
    pub generation: u64,
    pub loaded_at: UnixMillis,
    pub last: Option<Attempt>,
}

/// One attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub at: UnixMillis,
    /// `SIGHUP`, `file`, or a person's name.
    pub who: String,
    /// What changed, a line each; or why nothing did.
    pub result: Result<Vec<String>, String>,
}

/// Why a configuration was not taken up.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    Faults(String),
    #[error("only upstreams and routes change while standin runs; these need a restart: {0}")]
    NeedsRestart(String),
    #[error("the store is not open, because no route had a stand-in at the start: restart")]
    NoStore,
    #[error("more new routes than can be counted since the start: restart")]
    NoPlaces,
    #[error(transparent)]
    Route(#[from] RouteFault),
    #[error("an answer cannot be used: {0}")]
    Answer(#[from] AnswerFault),
}

#[derive(Debug)]
struct Asked {
    who: String,
    why: String,
    done: oneshot::Sender<Attempt>,
}

/// The task behind [`Reload`]: SIGHUP, a changed file, a person.
pub struct Reloader {
    source: Option<Source>,
    config: Config,
    shared: watch::Sender<Arc<Shared>>,
    routes: LiveRoutes,
    store: Store,
    keeps: bool,
    counters: Counters,
    asked: mpsc::Receiver<Asked>,
    state: watch::Sender<ReloadState>,
}

/// What a reload replaces and where it writes down that it did.
pub struct Parts {
    pub config: Config,
    pub shared: watch::Sender<Arc<Shared>>,
    pub routes: LiveRoutes,
    pub store: Store,
    /// A store was opened at the start.
    pub keeps: bool,
    pub counters: Counters,
}

/// Requests that may wait; a reload is a matter of milliseconds.
const WAITING: usize = 8;
/// Differences that are written down one by one.
const TOLD: usize = 100;

impl Reload {
    pub fn new(parts: Parts, source: Option<Source>) -> (Self, Reloader) {
        let (ask, asked) = mpsc::channel(WAITING);
        let state = watch::Sender::new(ReloadState {
            path: source.as_ref().map(|source| source.file.path().to_owned()),
            generation: 1,
            loaded_at: UnixMillis::now(),
            last: None,
        });
        let handle = Self { asked: ask, state: state.subscribe() };
        let Parts { config, shared, routes, store, keeps, counters } = parts;
        (handle, Reloader { source, config, shared, routes, store, keeps, counters, asked, state })
    }

    /// For a standin that was given its configuration and no file.
    pub fn never(now: UnixMillis) -> Self {
        let (asked, _) = mpsc::channel(1);
        let state = ReloadState { path: None, generation: 1, loaded_at: now, last: None };
        Self { asked, state: watch::Sender::new(state).subscribe() }
    }

    /// How it stands.
    pub fn state(&self) -> ReloadState {
        self.state.borrow().clone()
    }

    /// Reads the file now. `None`: standin is ending.
    pub async fn ask(&self, who: &str, why: &str) -> Option<Attempt> {
        let (done, attempt) = oneshot::channel();
        self.asked.send(Asked { who: who.to_owned(), why: why.to_owned(), done }).await.ok()?;
        attempt.await.ok()
    }
}

impl Reloader {
    /// Runs until dropped.
    pub async fn run(mut self) {
        let hang_up = tokio::signal::unix::SignalKind::hangup();
        let mut hang_up = match tokio::signal::unix::signal(hang_up) {
            Ok(hang_up) => hang_up,
            Err(error) => {
                tracing::error!(%error, "SIGHUP cannot be heard: ask for reloads by the API");
                return std::future::pending().await;
            }
        };
        loop {
            tokio::select! {
                _ = hang_up.recv() => {
                    seen(&mut self.source);
                    self.attempt("SIGHUP", "").await;
                }
                () = changed(&mut self.source) => {
                    self.attempt("file", "it changed").await;
                }
                Some(asked) = self.asked.recv() => {
                    seen(&mut self.source);
                    let attempt = self.attempt(&asked.who, &asked.why).await;
                    asked.done.send(attempt).ok();
                }
            }
        }
    }

    async fn attempt(&mut self, who: &str, why: &str) -> Attempt {
        let result = self.reload().map_err(|refused| refused.to_string());
        match &result {
            Ok(changes) => {
                for change in changes {
                    tracing::info!(who, "configuration: {change}");
                }
                tracing::info!(who, changes = changes.len(), "the configuration was read again");
            }
            Err(refused) => {
                tracing::error!(
                    who,
                    "the new configuration is refused, the old one goes on: {refused}"
                );
            }
        }
        let attempt = Attempt { at: UnixMillis::now(), who: who.to_owned(), result };
        self.write_down(&attempt, why).await;
        self.state.send_modify(|state| {
            if attempt.result.as_ref().is_ok_and(|changes| !changes.is_empty()) {
                state.generation += 1;
                state.loaded_at = attempt.at;
            }
            state.last = Some(attempt.clone());
        });
        attempt
    }

    /// What changed, a line each. Nothing was changed where there is an error.
    fn reload(&mut self) -> Result<Vec<String>, Refused> {
        let no_file = || Refused::Faults("standin was started without a file".to_owned());
        let source = self.source.as_ref().ok_or_else(no_file)?;
        let config = (source.load)().map_err(Refused::Faults)?;
        let differences = config.differences(&self.config);
        check_scope(&differences)?;
        let before = Arc::clone(&self.shared.borrow());
        let routes = Arc::new(before.routes.changed(&config, &differences)?);
        if routes.places() > self.counters.places() {
            return Err(Refused::NoPlaces);
        }
        if !self.keeps && config.route.values().any(|route| route.stand_in.is_some()) {
            return Err(Refused::NoStore);
        }
        let stand_in = before.stand_in.changed(&routes)?;
        // From here on nothing can fail.
        self.routes.replace(Arc::clone(&routes));
        self.shared.send_replace(Arc::new(Shared { routes, stand_in, ..(*before).clone() }));
        self.config = config;
        Ok(told(&differences))
    }

    async fn write_down(&self, attempt: &Attempt, why: &str) {
        let said = match &attempt.result {
            Ok(changes) if changes.is_empty() => return,
            Ok(changes) => changes.join("; "),
            Err(refused) => format!("refused: {refused}"),
        };
        let why = if why.is_empty() { said } else { format!("{why}: {said}") };
        let line = AuditLine {
            at: attempt.at,
            who: attempt.who.clone(),
            what: "reload".to_owned(),
            on: "configuration".to_owned(),
            why: why.chars().take(LONGEST_LINE).collect(),
        };
        if let Err(error) = self.store.audit(line).await
            && self.keeps
        {
            tracing::warn!(%error, "the reload is not in the audit log");
        }
    }
}

/// Characters of one line of the audit log.
const LONGEST_LINE: usize = 2000;

async fn changed(source: &mut Option<Source>) {
    match source {
        Some(source) => source.file.changed().await,
        None => std::future::pending().await,
    }
}

/// Whatever it says now is about to be read.
fn seen(source: &mut Option<Source>) {
    if let Some(source) = source {
        source.file.seen();
    }
}

fn check_scope(differences: &[Difference]) -> Result<(), Refused> {
    let fixed: Vec<_> = differences
        .iter()
        .filter(|one| !one.is_within(&["upstream", "route"]))
        .map(|one| one.key.as_str())
        .collect();
    if fixed.is_empty() { Ok(()) } else { Err(Refused::NeedsRestart(fixed.join(", "))) }
}

fn told(differences: &[Difference]) -> Vec<String> {
    let mut told: Vec<_> = differences.iter().take(TOLD).map(ToString::to_string).collect();
    if differences.len() > TOLD {
        told.push(format!("and {} more", differences.len() - TOLD));
    }
    told
}
