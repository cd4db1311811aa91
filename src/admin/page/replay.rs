//! Replay runs: start one with its impact known, follow it, stop it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Path, Query, State},
};
use serde::Deserialize;

use super::{Confirm, Frame, Shown, back_to, filters, html, overview::Done};
use crate::{
    admin::{
        Admin,
        actions::{ScopeAsked, Why},
        guard::Who,
        problem::Problem,
        view::{RouteStatus, RunList, RunStatus, Status, UpstreamStatus, counted},
    },
    time::UnixMillis,
};

#[derive(Template)]
#[template(path = "replay.html")]
struct Runs {
    frame: Frame,
    going_on: Vec<RunStatus>,
    ended: Vec<RunStatus>,
    routes: Vec<RouteStatus>,
    upstreams: Vec<UpstreamStatus>,
    queued: u64,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(Done { done }): Query<Done>,
) -> Shown {
    let status = Status::of(&admin.handles, UnixMillis::now());
    let runs = RunList::of(&admin.handles.replay.runs()).runs;
    let (going_on, ended) = runs.into_iter().partition(RunStatus::goes_on);
    Ok(html(&Runs {
        frame: Frame::of("replay", "Replay", &status).done(&done),
        going_on,
        ended,
        queued: status.open().saturating_sub(status.held()),
        routes: status.routes,
        upstreams: status.upstreams,
    }))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    /// `route NAME`, `upstream NAME`, or empty for all.
    #[serde(default)]
    scope: String,
    #[serde(default)]
    reason: String,
}

impl Asked {
    fn scope(&self) -> Result<ScopeAsked, Problem> {
        match self.scope.split_once(' ') {
            None if self.scope.is_empty() => Ok(ScopeAsked::default()),
            Some(("route", name)) => Ok(ScopeAsked { route: name.into(), ..ScopeAsked::default() }),
            Some(("upstream", name)) => {
                Ok(ScopeAsked { upstream: name.into(), ..ScopeAsked::default() })
            }
            _ => Err(Problem::bad("no such scope")),
        }
    }
}

pub(super) async fn confirm_start(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Asked>,
) -> Shown {
    let (scope, words) = admin.scope(&asked.scope()?).await?;
    let entries = admin.impact(&scope).entries;
    let what = if words == "all" { "everything that is stored".to_owned() } else { words };
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "replay", "Start a replay run"),
        question: format!("Replay {what}?"),
        means: vec![
            format!("{} would be sent to the app now.", counted(entries, "stored request", "stored requests")),
            "Live traffic goes first; the run starts slowly and stops by itself when the app fails.".into(),
            "Held entries are not touched. If such a run goes on already, you join it.".into(),
        ],
        action: "/replay/start".into(),
        hidden: vec![("scope", asked.scope)],
        button: "Start replay",
        grave: false,
        back: "/replay".into(),
        time: None,
        possible: true,
    }))
}

pub(super) async fn start(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Form(asked): Form<Asked>,
) -> Shown {
    let why = Why::of(&asked.reason)?;
    let (scope, on) = admin.scope(&asked.scope()?).await?;
    admin.start_run(scope, &on, &who, &why).await?;
    Ok(back_to("/replay", "start"))
}

pub(super) async fn confirm_stop(State(admin): State<Arc<Admin>>, Path(id): Path<String>) -> Shown {
    let runs = RunList::of(&admin.handles.replay.runs()).runs;
    let Some(run) = runs.into_iter().find(|run| run.id == id) else {
        return Err(Problem::no_such("replay run").into());
    };
    let possible = run.goes_on();
    let means = if possible {
        vec![
            "What is in flight finishes; everything else stays stored.".to_owned(),
            "Automatic replay starts again with the next recovery of the app.".to_owned(),
        ]
    } else {
        vec!["Not possible: the run has ended already.".to_owned()]
    };
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "replay", "Stop a replay run"),
        question: format!("Stop the replay of {}?", run.scope),
        means,
        action: format!("/replay/{}/stop", run.id),
        hidden: Vec::new(),
        button: "Stop",
        grave: false,
        back: "/replay".into(),
        time: None,
        possible,
    }))
}

pub(super) async fn stop(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Form(asked): Form<Asked>,
) -> Shown {
    admin.stop_run(&id, &who, &Why::of(&asked.reason)?).await?;
    Ok(back_to("/replay", "stop"))
}
