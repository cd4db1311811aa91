//! Entries: the table with its filters in the address, one entry, and what can be done to it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Redirect},
};
use serde::Deserialize;

use super::{
    Confirm, Frame, Shown, back_to, filters, html,
    overview::Done,
    story::{risk, story},
};
use crate::{
    admin::{
        Admin,
        actions::{Act, Why},
        filter::{Filter, duration},
        guard::Who,
        problem::Problem,
        view::{EntryDetail, EntryList, EntryView},
    },
    config::units,
    store::{Certainty, HeldReason, Outcome, Receipt, State as EntryState},
    time::UnixMillis,
};

#[derive(Template)]
#[template(path = "entries.html")]
struct List {
    frame: Frame,
    filter: Filter,
    routes: Vec<String>,
    list: EntryList,
    next: String,
    first: String,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Query(filter): Query<Filter>) -> Shown {
    let page = admin.handles.store.page(filter.query(UnixMillis::now())?).await?;
    let mut routes: Vec<String> =
        admin.handles.routes.now().all.iter().map(|route| route.name.to_string()).collect();
    routes.extend(admin.handles.store.totals().routes.keys().map(ToString::to_string));
    routes.sort();
    routes.dedup();
    let list = EntryList::of(&page);
    if let ([one], Ok(_)) = (&*list.entries, filter.search.parse::<Receipt>()) {
        return Ok(Redirect::to(&format!("/entries/{}", one.receipt)).into_response());
    }
    Ok(html(&List {
        frame: Frame::now(&admin, "entries", "Entries"),
        next: list.next.map(|seq| address(&filter, Some(seq))).unwrap_or_default(),
        first: address(&filter, None),
        filter,
        routes,
        list,
    }))
}

/// The list with the same filters, at another place.
fn address(filter: &Filter, before: Option<i64>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let fields = [
        ("route", &filter.route),
        ("state", &filter.state),
        ("outcome", &filter.outcome),
        ("held", &filter.held),
        ("followed_up", &filter.followed_up),
        ("search", &filter.search),
        ("from", &filter.from),
        ("until", &filter.until),
        ("limit", &filter.limit),
    ];
    for (name, value) in fields {
        if !value.is_empty() {
            query.append_pair(name, value);
        }
    }
    if let Some(before) = before {
        query.append_pair("before", &before.to_string());
    }
    format!("/entries?{}", query.finish())
}

#[derive(Template)]
#[template(path = "entry.html")]
struct One {
    frame: Frame,
    story: String,
    detail: EntryDetail,
    acts: Vec<(&'static str, &'static str)>,
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Shown {
    let detail = admin.detail(&id).await?;
    let frame = Frame::now(&admin, "entries", detail.entry.receipt.clone()).done(&done);
    Ok(html(&One {
        story: story(&detail, frame.now),
        acts: ACTS
            .iter()
            .filter(|(act, _)| possible(&detail.entry, act))
            .map(|(act, name)| (*act, *name))
            .collect(),
        frame,
        detail,
    }))
}

const ACTS: [(&str, &str); 5] = [
    ("follow-up", "Followed up"),
    ("replay", "Replay now"),
    ("release", "Release"),
    ("hold", "Hold"),
    ("write-off", "Write off"),
];

fn possible(entry: &EntryView, act: &str) -> bool {
    match act {
        "replay" | "hold" => entry.state == EntryState::Stored,
        "release" => entry.state == EntryState::Held && entry.held != Some(HeldReason::Damaged),
        "write-off" => matches!(entry.state, EntryState::Stored | EntryState::Held),
        "follow-up" => entry.outcome == Some(Outcome::Declined) && entry.followed_up.is_none(),
        _ => false,
    }
}

pub(super) async fn confirm(
    State(admin): State<Arc<Admin>>,
    Path((id, act)): Path<(String, String)>,
) -> Shown {
    let entry = admin.detail(&id).await?.entry;
    let receipt = &entry.receipt;
    let (question, means, button, grave) = match &*act {
        "replay" => (
            format!("Replay {receipt} now?"),
            vec!["It is sent to the app, once; its history will show the answer.".to_owned()],
            "Replay now",
            false,
        ),
        "hold" => (
            format!("Hold {receipt}?"),
            vec![
                "Nothing is sent until a person releases it.".to_owned(),
                "It stays open and counts against the caps; later entries of its sequence wait."
                    .to_owned(),
            ],
            "Hold",
            false,
        ),
        "release" => (
            format!("Release {receipt}?"),
            vec![
                "It is stored again and due at once; its attempts are counted anew.".to_owned(),
                risk(&entry),
            ],
            "Release",
            entry.certainty == Certainty::SentUnknown,
        ),
        "write-off" => (
            format!("Write off {receipt}?"),
            vec![
                "It is never sent. This cannot be taken back.".to_owned(),
                "Its customer was told that it is accepted: somebody must tell them.".to_owned(),
            ],
            "Write off for good",
            true,
        ),
        "follow-up" => (
            format!("Is {receipt} followed up?"),
            vec![
                "It leaves the worklist, and stays declined.".to_owned(),
                "Its customer was told that it is accepted: somebody has told them, or done it by hand."
                    .to_owned(),
            ],
            "It is followed up",
            false,
        ),
        _ => return Err(Problem::no_such("page").into()),
    };
    let possible = possible(&entry, &act);
    let not = format!("Not possible: the entry is {} now.", entry.state_words());
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "entries", question.clone()),
        question,
        means: if possible { means } else { vec![not] },
        action: format!("/entries/{}/{act}", entry.receipt),
        hidden: Vec::new(),
        button,
        grave,
        back: format!("/entries/{}", entry.receipt),
        time: (act == "release" && entry.held == Some(HeldReason::Expired))
            .then(|| ("extend", "May be sent for", extend(&admin, &entry.route))),
        possible,
    }))
}

/// What the form says at first: the route's own `expires`.
fn extend(admin: &Admin, route: &str) -> String {
    let routes = admin.handles.routes.now();
    let stand_in = routes.by_name(route).and_then(|route| route.config.stand_in.as_ref());
    stand_in.map_or_else(|| "24h".into(), |stand_in| units::write_duration(stand_in.expires))
}

#[derive(Deserialize)]
pub(super) struct Because {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    extend: String,
}

pub(super) async fn act(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path((id, act)): Path<(String, String)>,
    Form(because): Form<Because>,
) -> Shown {
    let what = match &*act {
        "replay" => Act::Replay,
        "hold" => Act::Hold,
        "release" => Act::Release { extend: duration("extend", &because.extend)? },
        "write-off" => Act::WriteOff,
        "follow-up" => Act::FollowUp,
        _ => return Err(Problem::no_such("page").into()),
    };
    let receipt = admin.entry(&id).await?.receipt;
    admin.act(&id, what, &who, &Why::of(&because.reason)?).await?;
    Ok(back_to(&format!("/entries/{receipt}"), &act))
}
