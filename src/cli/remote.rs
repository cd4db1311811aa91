//! The commands that ask a running standin through its admin API: status, entries, replay, mode.

mod client;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value};

use self::client::Client;
use super::{
    Failure,
    output::{self, Progress},
};
use crate::admin::view::{EntryDetail, EntryList, ModesView, RunList, RunStatus, Status};

/// Commands that speak to a running standin.
#[derive(Debug, Subcommand)]
pub(super) enum RemoteCommand {
    /// Say what standin does now: its state in a sentence, its numbers, its modes.
    Status {
        #[command(flatten)]
        to: To,
    },
    /// Look at stored requests, and decide about them.
    #[command(subcommand)]
    Entries(Entries),
    /// Start, watch and stop replay runs.
    #[command(subcommand)]
    Replay(Replay),
    /// Set the mode: auto, forced (always stand in) or pass-through (never stand in).
    Mode(Mode),
}

/// Which standin is asked, and how it answers.
#[derive(Debug, Args)]
pub(super) struct To {
    /// Address of the admin API.
    #[arg(
        long,
        env = "STANDIN_ADMIN",
        default_value = "http://127.0.0.1:9900",
        value_name = "URL"
    )]
    admin: String,
    /// The token of [admin]; better given in the environment, where other users do not see it.
    #[arg(long, env = "STANDIN_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Print the API's JSON instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Entries {
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
    /// Give an entry up for good: it is never sent.
    WriteOff(Decision),
}

/// What is done to one entry, and why.
#[derive(Debug, Args)]
pub(super) struct Decision {
    /// Receipt, or number of the entry.
    id: String,
    #[command(flatten)]
    because: Because,
    #[command(flatten)]
    to: To,
}

#[derive(Debug, Args)]
pub(super) struct Because {
    /// Why; goes into the audit log.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum Replay {
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
pub(super) struct Mode {
    mode: Which,
    /// How long `forced` lasts, for example 30m or 4h: 1h when absent, at most 24h.
    #[arg(long = "for", value_name = "TIME")]
    for_time: Option<String>,
    /// Only this route.
    #[arg(long)]
    route: Option<String>,
    #[command(flatten)]
    because: Because,
    #[command(flatten)]
    to: To,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    Auto,
    Forced,
    PassThrough,
}

/// Asks, and shows the answer.
pub(super) fn run(command: &RemoteCommand) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::general)?;
    runtime.block_on(async {
        match command {
            RemoteCommand::Status { to } => {
                let answer = Client::new(to)?.get("/status", &[]).await?;
                show::<Status>(to, &answer, output::status)
            }
            RemoteCommand::Entries(command) => entries(command).await,
            RemoteCommand::Replay(command) => replay(command).await,
            RemoteCommand::Mode(command) => mode(command).await,
        }
    })
}

async fn entries(command: &Entries) -> Result<(), Failure> {
    match command {
        Entries::List { route, state, outcome, held, search, from, until, before, limit, to } => {
            let (before, limit) = (before.map(|n| n.to_string()), Some(limit.to_string()));
            let asked = [
                ("route", route),
                ("state", state),
                ("outcome", outcome),
                ("held", held),
                ("search", search),
                ("from", from),
                ("until", until),
                ("before", &before),
                ("limit", &limit),
            ];
            let answer = Client::new(to)?.get("/entries", &asked).await?;
            show::<EntryList>(to, &answer, output::entries)
        }
        Entries::Show { id, to } => {
            let path = format!("/entries/{}", segment(id));
            let answer = Client::new(to)?.get(&path, &[]).await?;
            show::<EntryDetail>(to, &answer, output::entry)
        }
        Entries::Replay(decision) => {
            let answer = decide("replay", decision, &None).await?;
            show::<RunStatus>(&decision.to, &answer, output::run)
        }
        Entries::Hold(decision) => decided("hold", decision, &None).await,
        Entries::Release { decision, extend } => decided("release", decision, extend).await,
        Entries::WriteOff(decision) => decided("write-off", decision, &None).await,
    }
}

async fn decide(act: &str, decision: &Decision, extend: &Option<String>) -> Result<Value, Failure> {
    let path = format!("/entries/{}/{act}", segment(&decision.id));
    let body = [("reason", Some(&decision.because.reason)), ("extend", extend.as_ref())];
    Client::new(&decision.to)?.post(&path, body).await
}

async fn decided(act: &str, decision: &Decision, extend: &Option<String>) -> Result<(), Failure> {
    let answer = decide(act, decision, extend).await?;
    show::<EntryDetail>(&decision.to, &answer, output::decided)
}

async fn replay(command: &Replay) -> Result<(), Failure> {
    match command {
        Replay::List { to } => {
            let answer = Client::new(to)?.get("/replay/runs", &[]).await?;
            show::<RunList>(to, &answer, output::runs)
        }
        Replay::Start { route, upstream, entry, because, watch, to } => {
            let body = [
                ("route", route.as_ref()),
                ("upstream", upstream.as_ref()),
                ("entry", entry.as_ref()),
                ("reason", Some(&because.reason)),
            ];
            let client = Client::new(to)?;
            let answer = client.post("/replay/runs", body).await?;
            if *watch {
                return self::watch(&client, to, Some(read::<RunStatus>(&answer)?.id)).await;
            }
            show::<RunStatus>(to, &answer, output::run)
        }
        Replay::Watch { run, to } => watch(&Client::new(to)?, to, run.clone()).await,
        Replay::Stop { run, because, to } => {
            let path = format!("/replay/runs/{}/stop", segment(run));
            let body = [("reason", Some(&because.reason))];
            let answer = Client::new(to)?.post(&path, body).await?;
            show::<RunStatus>(to, &answer, output::run)
        }
    }
}

/// Follows a run to its end. A run that leaves something for a person ends with exit code 1.
async fn watch(client: &Client, to: &To, id: Option<String>) -> Result<(), Failure> {
    let mut events = client.events("/replay/events").await?;
    let mut id = id;
    let mut progress = Progress::new(to.json);
    while let Some(event) = events.next().await? {
        let list: RunList = serde_json::from_str(&event).map_err(unreadable)?;
        let wanted = match &id {
            Some(id) => list.runs.iter().find(|run| run.id == *id),
            None => list.runs.iter().find(|run| run.goes_on()),
        };
        let Some(run) = wanted else {
            return match id {
                Some(id) => Err(Failure { code: 1, text: format!("no replay run {id}") }),
                None => {
                    output::say("No replay run goes on.");
                    Ok(())
                }
            };
        };
        id = Some(run.id.clone());
        progress.show(run);
        if !run.goes_on() {
            progress.end(run);
            let left = run.held + run.declined;
            let text = format!(
                "the run left {left} for a person: see `standin entries list --state held`, or `--outcome declined`"
            );
            return if left == 0 { Ok(()) } else { Err(Failure { code: 1, text }) };
        }
    }
    Err(Failure { code: UNREACHABLE, text: "standin ended the event stream".into() })
}

async fn mode(command: &Mode) -> Result<(), Failure> {
    let mode = match command.mode {
        Which::Auto => "auto",
        Which::Forced => "forced",
        Which::PassThrough => "pass_through",
    };
    let mode = mode.to_owned();
    let body = [
        ("mode", Some(&mode)),
        ("route", command.route.as_ref()),
        ("for", command.for_time.as_ref()),
        ("reason", Some(&command.because.reason)),
    ];
    let answer = Client::new(&command.to)?.post("/mode", body).await?;
    show::<ModesView>(&command.to, &answer, output::modes)
}

/// Exit code: the admin API cannot be reached.
const UNREACHABLE: u8 = 6;

fn show<T: serde::de::DeserializeOwned>(
    to: &To,
    answer: &Value,
    table: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if to.json {
        output::say(&serde_json::to_string_pretty(answer).map_err(unreadable)?);
    } else {
        output::say(&table(&read(answer)?));
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    serde_json::from_value(answer.clone()).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Failure {
    let text = format!("the answer is not of this version's admin API ({error}); try --json");
    Failure { code: 1, text }
}

/// What a person typed, as one segment of a path.
fn segment(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The fields that are given, as a JSON object.
fn object<const N: usize>(fields: [(&str, Option<&String>); N]) -> Value {
    let given = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.as_str().into())));
    Value::Object(given.collect::<Map<_, _>>())
}
