//! What the commands that ask a running standin take, and their help.

use clap::{Args, Subcommand, ValueEnum};

/// Commands that speak to a running standin.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RemoteCommand {
    /// Say what standin does now: its state in a sentence, its numbers, its modes.
    Status {
        #[command(flatten)]
        to: To,
    },
    /// Look at stored requests, and decide about them.
    #[command(subcommand)]
    Entries(Entries),
    /// Look at failed exchanges that were kept for support.
    #[command(subcommand)]
    Records(RecordsCommand),
    /// Start, watch and stop replay runs.
    #[command(subcommand)]
    Replay(Replay),
    /// Set the mode: auto, forced (always stand in) or pass-through (never stand in).
    Mode(Mode),
    /// Read the configuration again: taken up whole, or refused whole and the old one goes on.
    Reload {
        #[command(flatten)]
        because: Because,
        #[command(flatten)]
        to: To,
    },
}

/// Which standin is asked, and how it answers.
#[derive(Debug, Args)]
pub(in crate::cli) struct To {
    /// Address of the admin API.
    #[arg(
        long,
        env = "STANDIN_ADMIN",
        default_value = "http://127.0.0.1:9900",
        value_name = "URL"
    )]
    pub(super) admin: String,
    /// The token of `[admin]`; better given in the environment, where other users do not see it.
    #[arg(long, env = "STANDIN_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// Print the API's JSON instead of tables.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RecordsCommand {
    /// List them, newest first.
    List {
        #[command(flatten)]
        to: To,
    },
    /// Show one, with what was said in it; that goes into the audit log.
    Show {
        /// Its number.
        id: u64,
        #[command(flatten)]
        to: To,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Entries {
    /// List entries, newest first.
    List {
        /// Only this route.
        #[arg(long)]
        route: Option<String>,
        /// stored, leased, sending, held or closed.
        #[arg(long)]
        state: Option<String>,
        /// completed, already_applied, declined or written_off.
        #[arg(long)]
        outcome: Option<String>,
        /// attempts, expired, credentials, unclear, unanswered, route_gone, damaged or by_person.
        #[arg(long)]
        held: Option<String>,
        /// Of declined ones: yes or no, whether a person has followed them up.
        #[arg(long)]
        followed_up: Option<String>,
        /// A receipt, a label's value, a request id or a key: exact.
        #[arg(long)]
        search: Option<String>,
        /// Received from then on: 2026-11-22T14:02 (UTC), or a time ago such as 2h.
        #[arg(long)]
        from: Option<String>,
        /// Received before then; as --from.
        #[arg(long)]
        until: Option<String>,
        /// Older than the entry of this number.
        #[arg(long)]
        before: Option<i64>,
        /// 1 to 200.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        to: To,
    },
    /// Show one entry: its history, every attempt, its bytes, the answer its client got.
    Show {
        /// Receipt, or number of the entry.
        id: String,
        #[command(flatten)]
        to: To,
    },
    /// Send a stored entry to the app now.
    Replay(Decision),
    /// Hold a stored entry: nothing is sent until it is released.
    Hold(Decision),
    /// Give a held entry back to replay.
    Release {
        #[command(flatten)]
        decision: Decision,
        /// For how long an expired entry may be sent again, for example 24h; the route's `expires` when absent.
        #[arg(long)]
        extend: Option<String>,
    },
    /// Give all entries that are held for a reason back to replay, the oldest first.
    ReleaseAll {
        /// attempts, expired, credentials, route_gone or by_person; the others are looked at one by one.
        #[arg(long)]
        held: String,
        /// Only this route.
        #[arg(long)]
        route: Option<String>,
        /// 1 to 10000.
        #[arg(long, default_value_t = 10_000)]
        at_most: u64,
        /// For how long expired entries may be sent again, for example 24h; their route's `expires` when absent.
        #[arg(long)]
        extend: Option<String>,
        #[command(flatten)]
        because: Because,
        #[command(flatten)]
        to: To,
    },
    /// Give an entry up for good: it is never sent.
    WriteOff(Decision),
    /// Say that a person has done what there was to do about a declined entry: it leaves the worklist.
    FollowUp(Decision),
}

/// What is done to one entry, and why.
#[derive(Debug, Args)]
pub(in crate::cli) struct Decision {
    /// Receipt, or number of the entry.
    pub(super) id: String,
    #[command(flatten)]
    pub(super) because: Because,
    #[command(flatten)]
    pub(super) to: To,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Because {
    /// Why; goes into the audit log.
    #[arg(long)]
    pub(super) reason: String,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Replay {
    /// List running and recent runs.
    List {
        #[command(flatten)]
        to: To,
    },
    /// Start a run, or join the running one of the same scope.
    Start {
        /// Only entries of this route.
        #[arg(long, conflicts_with_all = ["upstream", "entry"])]
        route: Option<String>,
        /// Only entries of this upstream.
        #[arg(long, conflicts_with = "entry")]
        upstream: Option<String>,
        /// Only this entry: receipt or number.
        #[arg(long)]
        entry: Option<String>,
        #[command(flatten)]
        because: Because,
        /// Follow its progress to the end.
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        to: To,
    },
    /// Follow the progress of a run to its end.
    Watch {
        /// Id of the run; the newest that goes on when absent.
        run: Option<String>,
        #[command(flatten)]
        to: To,
    },
    /// End a run: what is in flight finishes, everything else stays stored.
    Stop {
        /// Id of the run.
        run: String,
        #[command(flatten)]
        because: Because,
        #[command(flatten)]
        to: To,
    },
}

/// Which mode, for what and how long.
#[derive(Debug, Args)]
pub(in crate::cli) struct Mode {
    pub(super) mode: Which,
    /// How long `forced` lasts, for example 30m or 4h: 1h when absent, at most 24h.
    #[arg(long = "for", value_name = "TIME")]
    pub(super) for_time: Option<String>,
    /// Only this route.
    #[arg(long)]
    pub(super) route: Option<String>,
    #[command(flatten)]
    pub(super) because: Because,
    #[command(flatten)]
    pub(super) to: To,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Which {
    Auto,
    Forced,
    PassThrough,
}
