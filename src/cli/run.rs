//! `standin run`: configuration, log, server; and the switches that only tests use.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use super::Failure;
use crate::{
    config::{Config, LogFormat},
    reload::Source,
    server::{self, Hidden, ServerError},
};

/// `standin run`
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", conflicts_with = "upstream")]
    config: Option<PathBuf>,
    /// Where clients connect; wins over the configuration.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where the admin page and API listen; wins over the configuration.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Worker threads; wins over the configuration (default: one per core).
    #[arg(long, value_name = "NUMBER")]
    workers: Option<std::num::NonZeroUsize>,
    /// The app, if there is no configuration.
    #[arg(long, value_name = "URL", required_unless_present = "config")]
    upstream: Option<String>,
    /// End as by kill -9 when this point is reached for the nth time: NAME or NAME:N.
    #[arg(long, hide = true, value_name = "NAME[:N]")]
    failpoint: Option<String>,
    /// Hang for ever, as a disk may, when this point is reached for the nth time: NAME or NAME:N.
    #[arg(long, hide = true, value_name = "NAME[:N]", conflicts_with = "failpoint")]
    hang: Option<String>,
    /// Commit without waiting for the disk: a power cut then loses what was promised.
    #[arg(long, hide = true)]
    synchronous_normal: bool,
    /// Look for damage in the store's file after so many milliseconds, again and again.
    #[arg(long, hide = true, value_name = "MILLISECONDS")]
    check_store_every: Option<u64>,
}

/// Runs until it is asked to end.
pub(super) fn run(args: &RunArgs) -> Result<(), Failure> {
    let source = source(args);
    let config = configuration(args).map_err(|text| Failure { code: 3, text })?;
    start_log(&config);
    for warning in config.warnings() {
        tracing::warn!(key = warning.key, "{}", warning.message);
    }
    no_core_dumps();
    let hidden = Hidden {
        failpoint: match (&args.failpoint, &args.hang) {
            (Some(point), _) => Some(failpoint(point, die)),
            (None, Some(point)) => Some(failpoint(point, hang)),
            (None, None) => None,
        },
        synchronous_normal: args.synchronous_normal,
        check_store_every: args.check_store_every.map(std::time::Duration::from_millis),
    };
    server::run(&config, source, &hidden).map_err(|error| {
        let code = match &error {
            ServerError::Store(_) => 4,
            ServerError::Listen { .. } => 5,
            _ => 1,
        };
        Failure { code, text: error.to_string() }
    })
}

/// Where a reload reads: the same file under the same arguments.
fn source(args: &RunArgs) -> Option<Source> {
    let path = args.config.clone()?;
    let args = args.clone();
    Some(Source::new(path, move || configuration(&args)))
}

fn configuration(args: &RunArgs) -> Result<Config, String> {
    let mut config = match (&args.config, &args.upstream) {
        (Some(file), _) => Config::load(file).map_err(|faults| faults.to_string())?,
        (None, upstream) => {
            let listen = args.listen.unwrap_or(crate::config::ListenConfig::default().address);
            let upstream = upstream.as_deref().unwrap_or_default();
            Config::for_one_upstream(listen, upstream).map_err(|faults| faults.to_string())?
        }
    };
    if let Some(address) = args.listen {
        config.listen.address = address;
    }
    if args.workers.is_some() {
        config.workers = args.workers;
    }
    if let Some(address) = args.admin {
        config.admin.address = address;
    }
    // An argument may contradict the file: an admin address for all, say, and no token.
    config.verify().map_err(|faults| faults.to_string())?;
    Ok(config)
}

fn start_log(config: &Config) {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Fails only if a log is there already, which is as good.
    match config.log.format {
        LogFormat::Text => log.try_init().ok(),
        LogFormat::Json => log.json().try_init().ok(),
    };
}

/// A core dump would hold bodies and credentials.
fn no_core_dumps() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Core, none) {
        tracing::warn!(%error, "cannot switch core dumps off");
    }
}

/// Does `act` when the point is reached for the nth time.
fn failpoint(wanted: &str, act: fn()) -> Arc<dyn Fn(&str) + Send + Sync> {
    let (name, times) = wanted.split_once(':').unwrap_or((wanted, "1"));
    let (name, times) = (name.to_owned(), times.parse::<u64>().unwrap_or(1));
    let reached = std::sync::atomic::AtomicU64::new(0);
    Arc::new(move |point| {
        if point == name && reached.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == times
        {
            eprintln!("failpoint {point} reached");
            act();
        }
    })
}

/// Ends this process without any farewell.
fn die() {
    // Cannot fail for one's own process; if it did, the test would see the process live on.
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
}

fn hang() {
    loop {
        std::thread::park();
    }
}
