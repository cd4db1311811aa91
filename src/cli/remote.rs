//! The commands that ask a running standin through its admin API: status, entries, replay, mode.

mod arguments;
mod client;

use serde_json::{Map, Value};

pub(super) use self::arguments::RemoteCommand;
use self::{
    arguments::{Decision, Entries, Mode, RecordsCommand, Replay, To, Which},
    client::Client,
};
use super::{
    Failure,
    output::{self, Progress},
};
use crate::admin::view::{
    ConfigStatus, EntryDetail, EntryList, ModesView, RecordDetail, RecordList, Released, RunList,
    RunStatus, Status,
};

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
            RemoteCommand::Records(command) => records(command).await,
            RemoteCommand::Replay(command) => replay(command).await,
            RemoteCommand::Mode(command) => mode(command).await,
            RemoteCommand::Reload { because, to } => {
                let body = object([("reason", Some(&because.reason))]);
                let answer = Client::new(to)?.post("/reload", body).await?;
                show::<ConfigStatus>(to, &answer, output::reloaded)
            }
        }
    })
}

async fn entries(command: &Entries) -> Result<(), Failure> {
    match command {
        Entries::List {
            route,
            state,
            outcome,
            held,
            followed_up,
            search,
            from,
            until,
            before,
            limit,
            to,
        } => {
            let (before, limit) = (before.map(|n| n.to_string()), Some(limit.to_string()));
            let asked = [
                ("route", route),
                ("state", state),
                ("outcome", outcome),
                ("held", held),
                ("followed_up", followed_up),
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
        Entries::ReleaseAll { held, route, at_most, extend, because, to } => {
            let mut body = object([
                ("reason", Some(&because.reason)),
                ("route", route.as_ref()),
                ("extend", extend.as_ref()),
            ]);
            body["at_most"] = (*at_most).into();
            let path = format!("/held/{}/release", segment(held));
            let answer = Client::new(to)?.post(&path, body).await?;
            show::<Released>(to, &answer, output::released)
        }
        Entries::WriteOff(decision) => decided("write-off", decision, &None).await,
        Entries::FollowUp(decision) => decided("follow-up", decision, &None).await,
    }
}

async fn decide(act: &str, decision: &Decision, extend: &Option<String>) -> Result<Value, Failure> {
    let path = format!("/entries/{}/{act}", segment(&decision.id));
    let body = object([("reason", Some(&decision.because.reason)), ("extend", extend.as_ref())]);
    Client::new(&decision.to)?.post(&path, body).await
}

async fn decided(act: &str, decision: &Decision, extend: &Option<String>) -> Result<(), Failure> {
    let answer = decide(act, decision, extend).await?;
    show::<EntryDetail>(&decision.to, &answer, output::decided)
}

async fn records(command: &RecordsCommand) -> Result<(), Failure> {
    match command {
        RecordsCommand::List { to } => {
            let answer = Client::new(to)?.get("/records", &[]).await?;
            show::<RecordList>(to, &answer, output::records)
        }
        RecordsCommand::Show { id, to } => {
            let answer = Client::new(to)?.get(&format!("/records/{id}"), &[]).await?;
            show::<RecordDetail>(to, &answer, output::record)
        }
    }
}

async fn replay(command: &Replay) -> Result<(), Failure> {
    match command {
        Replay::List { to } => {
            let answer = Client::new(to)?.get("/replay/runs", &[]).await?;
            show::<RunList>(to, &answer, output::runs)
        }
        Replay::Start { route, upstream, entry, because, watch, to } => {
            let body = object([
                ("route", route.as_ref()),
                ("upstream", upstream.as_ref()),
                ("entry", entry.as_ref()),
                ("reason", Some(&because.reason)),
            ]);
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
            let body = object([("reason", Some(&because.reason))]);
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
                "the run left {left} for a person: see `standin entries list --state held`, or `--outcome declined --followed-up no`"
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
    let body = object([
        ("mode", Some(&mode)),
        ("route", command.route.as_ref()),
        ("for", command.for_time.as_ref()),
        ("reason", Some(&command.because.reason)),
    ]);
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
