//! The pools of egress proxies: how each stands, and what can be done to it. Only there where a pool is configured.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Query, State},
};
use serde::Deserialize;

use super::{Confirm, Frame, Shown, back_to, filters, html, overview::Done};
use crate::{
    admin::{
        Admin,
        actions::Why,
        filter::duration,
        guard::Who,
        problem::Problem,
        view::{EgressPoolView, EgressView, Status},
    },
    egress::{Change, Standing},
    time::UnixMillis,
};

#[derive(Template)]
#[template(path = "egress.html")]
struct Egress {
    frame: Frame,
    pools: Vec<EgressPoolView>,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Query(Done { done }): Query<Done>,
) -> Shown {
    let status = Status::of(&admin.handles, UnixMillis::now());
    let frame = Frame::of("egress", "Egress", &status).done(&done);
    Ok(html(&Egress { frame, pools: EgressView::of(&admin.handles).pools }))
}

#[derive(Deserialize)]
pub(super) struct Which {
    pool: String,
    proxy: String,
    act: String,
}

pub(super) async fn confirm(State(admin): State<Arc<Admin>>, Query(which): Query<Which>) -> Shown {
    let pool = admin.egress_pool(&which.pool)?;
    let Some(proxy) = pool.proxies.iter().find(|proxy| proxy.name == which.proxy) else {
        return Err(Problem::no_such("egress proxy").into());
    };
    let name = &proxy.name;
    let (question, means, button, grave) = match &*which.act {
        "drain" => (
            format!("Drain {name}?"),
            vec![format!("Its {} sessions go on; it takes nothing new.", proxy.sessions)],
            "Drain",
            false,
        ),
        "cool" => (
            format!("Let {name} rest?"),
            vec![
                "It takes nothing until the time is over.".to_owned(),
                "Its sessions go on through another proxy.".to_owned(),
            ],
            "Let it rest",
            false,
        ),
        "activate" => (
            format!("Activate {name}?"),
            vec!["It takes its turn again: it neither drains nor rests.".to_owned()],
            "Activate",
            false,
        ),
        "retire" => (
            format!("Retire {name}?"),
            vec![
                "It is never used again, whatever a list says; its sessions go on through another proxy."
                    .to_owned(),
                format!("What is in flight through it finishes: {}.", proxy.in_flight),
                "To use it once more it has to be added anew.".to_owned(),
            ],
            "Retire for good",
            true,
        ),
        _ => return Err(Problem::no_such("page").into()),
    };
    let possible = !proxy.is_retired();
    let generation = proxy.generation.map(|generation| generation.to_string());
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "egress", question.clone()),
        question,
        means: if possible { means } else { vec!["Not possible: it is retired.".to_owned()] },
        action: "/egress/change".into(),
        hidden: vec![
            ("pool", which.pool),
            ("proxy", which.proxy),
            ("generation", generation.unwrap_or_default()),
            ("act", which.act.clone()),
        ],
        button,
        grave,
        back: "/egress".into(),
        time: (which.act == "cool").then_some(("for", "For how long", "10m".to_owned())),
        possible,
    }))
}

#[derive(Deserialize)]
pub(super) struct Asked {
    pool: String,
    proxy: String,
    act: String,
    #[serde(default)]
    generation: String,
    #[serde(default, rename = "for")]
    for_time: String,
    #[serde(default)]
    reason: String,
}

pub(super) async fn change(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Form(asked): Form<Asked>,
) -> Shown {
    let why = Why::of(&asked.reason)?;
    let change = match &*asked.act {
        "drain" => Change::Drain,
        "retire" => Change::Retire,
        "activate" => Change::Activate,
        "cool" => Change::Cool(duration("for", &asked.for_time)?.unwrap_or(REST)),
        _ => return Err(Problem::no_such("page").into()),
    };
    let generation = asked.generation.parse().ok();
    admin.change_egress(&asked.pool, &asked.proxy, generation, change, &who, &why).await?;
    Ok(back_to("/egress", "egress"))
}

#[derive(Deserialize)]
pub(super) struct Adding {
    pool: String,
    url: String,
    #[serde(default)]
    only_for: String,
    #[serde(default)]
    reason: String,
}

pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Form(asked): Form<Adding>,
) -> Shown {
    let why = Why::of(&asked.reason)?;
    let routes = asked.only_for.split([',', ' ']).filter(|route| !route.is_empty());
    let only_for = routes.map(str::to_owned).collect();
    let change = Change::Add { url: asked.url.trim().to_owned(), only_for };
    admin.change_egress(&asked.pool, "", None, change, &who, &why).await?;
    Ok(back_to("/egress", "egress"))
}

/// How long a proxy rests when nobody says.
const REST: Duration = Duration::from_secs(600);
