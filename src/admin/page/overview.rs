//! The first screen: one sentence of state, the numbers, the mode switch, upstreams, routes, the last days.

use std::{collections::BTreeMap, sync::Arc};

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Query, State},
};
use serde::Deserialize;

use super::{Confirm, Frame, Shown, back_to, filters, html};
use crate::{
    admin::{
        Admin,
        actions::Why,
        filter::duration,
        guard::Who,
        problem::Problem,
        view::{Answers, Status, from_word},
    },
    mode::Mode,
    time::UnixMillis,
};

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    status: Status,
    answers: Answers,
    days: Vec<Day>,
    busiest: u64,
}

/// One UTC day, all routes together.
#[derive(Default)]
struct Day {
    day: String,
    accepted: u64,
    completed: u64,
    declined: u64,
    written_off: u64,
}

impl Day {
    /// Width of its bar, of 100.
    fn width(&self, busiest: &u64) -> u64 {
        (self.accepted * 100).checked_div(*busiest).unwrap_or(0)
    }
}

#[derive(Deserialize)]
pub(super) struct Done {
    #[serde(default)]
    pub(super) done: String,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Query(Done { done }): Query<Done>,
) -> Shown {
    let status = Status::of(&admin.handles, UnixMillis::now());
    // The first screen must open even when the store cannot read.
    let volumes = admin.handles.store.volumes(14).await.unwrap_or_default();
    let mut days: BTreeMap<String, Day> = BTreeMap::new();
    for volume in volumes {
        let day = days.entry(volume.day.clone()).or_default();
        day.day = volume.day;
        day.accepted += volume.accepted;
        day.completed += volume.completed;
        day.declined += volume.declined;
        day.written_off += volume.written_off;
    }
    let days: Vec<Day> = days.into_values().rev().collect();
    Ok(html(&Overview {
        frame: Frame::of("overview", "Overview", &status).done(&done),
        answers: status.answers(),
        busiest: days.iter().map(|day| day.accepted).max().unwrap_or(0),
        days,
        status,
    }))
}

#[derive(Deserialize)]
pub(super) struct ModeAsked {
    mode: String,
    #[serde(default)]
    route: String,
    #[serde(default, rename = "for")]
    for_time: String,
    #[serde(default)]
    reason: String,
}

impl ModeAsked {
    fn mode(&self) -> Result<Mode, Problem> {
        from_word(&self.mode).ok_or_else(|| Problem::bad("no such mode"))
    }
}

pub(super) async fn confirm_mode(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<ModeAsked>,
) -> Shown {
    let mode = asked.mode()?;
    let all = asked.route.is_empty();
    let what = if all { "all routes".to_owned() } else { format!("route {}", asked.route) };
    let (question, means, grave) = match mode {
        Mode::Auto => (
            format!("Set {what} to auto?"),
            vec![
                "standin decides by itself: the app answers while it can, standin stands in when it cannot."
                    .to_owned(),
                "Automatic replay goes on.".to_owned(),
            ],
            false,
        ),
        Mode::Forced => (
            format!("Force {what} to stand in?"),
            vec![
                "The app gets no requests that standin may answer, even if it is healthy.".to_owned(),
                "Low-risk requests are stored and answered; all others get an honest error.".to_owned(),
                "Automatic replay pauses, and an alarm is shown until it ends.".to_owned(),
            ],
            true,
        ),
        Mode::PassThrough => (
            format!("Set {what} to pass-through?"),
            vec![
                "No new entries: when the app is down, its customers get errors.".to_owned(),
                "What is stored already is still replayed.".to_owned(),
            ],
            true,
        ),
    };
    let mut hidden = vec![("mode", asked.mode.clone())];
    if !all {
        hidden.push(("route", asked.route.clone()));
    }
    let first = if asked.for_time.is_empty() { "1h".to_owned() } else { asked.for_time.clone() };
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "overview", "Mode"),
        question,
        means,
        action: "/mode".into(),
        hidden,
        button: match mode {
            Mode::Auto => "Set to auto",
            Mode::Forced => "Force stand-ins",
            Mode::PassThrough => "Set to pass-through",
        },
        grave,
        back: "/".into(),
        time: (mode == Mode::Forced).then_some(("for", "For how long (at most 24h)", first)),
        possible: true,
    }))
}

pub(super) async fn set_mode(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Form(asked): Form<ModeAsked>,
) -> Shown {
    let why = Why::of(&asked.reason)?;
    let for_time = duration("for", &asked.for_time)?;
    let route = Some(&*asked.route).filter(|route| !route.is_empty());
    admin.set_mode(route, asked.mode()?, for_time, &who, &why).await?;
    Ok(back_to("/", "mode"))
}

pub(super) async fn confirm_reload(State(admin): State<Arc<Admin>>) -> Shown {
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "overview", "Configuration"),
        question: "Read the configuration again?".into(),
        means: vec![
            "It is checked whole first. If anything is wrong with it, nothing changes.".to_owned(),
            "Upstreams and routes change with the next request; requests under way end as they began.".to_owned(),
        ],
        action: "/reload".into(),
        hidden: Vec::new(),
        button: "Read again",
        grave: false,
        back: "/".into(),
        time: None,
        possible: true,
    }))
}

#[derive(Deserialize)]
pub(super) struct ReadAgain {
    #[serde(default)]
    reason: String,
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Form(asked): Form<ReadAgain>,
) -> Shown {
    admin.reload(&who, &Why::of(&asked.reason)?).await?;
    Ok(back_to("/", "reload"))
}
