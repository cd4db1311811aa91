//! The page: server-rendered, complete without JavaScript, everything embedded. Stored bytes are hostile input: they
//! reach a template only through `view`, and the template escapes them; nothing is ever marked safe.

mod audit;
mod egress;
mod entries;
mod filters;
mod overview;
mod records;
mod release_all;
mod replay;
mod story;
mod worklist;

use std::sync::Arc;

use askama::Template;
use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};

use super::{
    Admin,
    problem::Problem,
    view::{Sentence, Severity, Status},
};
use crate::time::UnixMillis;

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/mode", get(overview::confirm_mode).post(overview::set_mode))
        .route("/reload", get(overview::confirm_reload).post(overview::reload))
        .route("/entries", get(entries::list))
        .route("/entries/{id}", get(entries::show))
        .route("/entries/{id}/{act}", get(entries::confirm).post(entries::act))
        .route("/worklist", get(worklist::show))
        .route("/worklist/{group}", get(worklist::group))
        .route("/worklist/{group}/release", get(release_all::confirm).post(release_all::act))
        .route("/replay", get(replay::list))
        .route("/replay/start", get(replay::confirm_start).post(replay::start))
        .route("/replay/{id}/stop", get(replay::confirm_stop).post(replay::stop))
        .route("/audit", get(audit::show))
        .route("/records", get(records::list))
        .route("/records/{id}", get(records::show))
        .route("/egress", get(egress::show))
        .route("/egress/change", get(egress::confirm).post(egress::change))
        .route("/egress/add", post(egress::add))
        .route("/assets/{name}", get(asset))
}

/// What every page shows around its own content.
struct Frame {
    /// The page we are on, for the navigation.
    on: &'static str,
    title: String,
    now: UnixMillis,
    version: String,
    severity: Severity,
    /// Held, and declined and not followed up.
    work: u64,
    running: u64,
    /// Whether there is a pool of egress proxies.
    egress: bool,
    /// Whether a route keeps failed exchanges.
    records: bool,
    /// Shown on every page while stand-ins are forced.
    forced: Vec<Sentence>,
    /// What was just done.
    done: Option<&'static str>,
}

impl Frame {
    fn of(on: &'static str, title: impl Into<String>, status: &Status) -> Self {
        let forced = if status.forced() { status.sentences.clone() } else { Vec::new() };
        Self {
            on,
            title: title.into(),
            now: status.now.0,
            version: status.version.clone(),
            severity: status.severity,
            work: status.held() + status.declined(),
            running: status.runs_going_on,
            egress: !status.egress.is_empty(),
            records: status.records,
            forced: forced
                .into_iter()
                .filter(|s| s.text.to_lowercase().contains("forced"))
                .collect(),
            done: None,
        }
    }

    fn now(admin: &Admin, on: &'static str, title: impl Into<String>) -> Self {
        Self::of(on, title, &Status::of(&admin.handles, UnixMillis::now()))
    }

    fn alarmed(&self) -> bool {
        self.severity == Severity::Alarm
    }

    /// Says what was just done; the word comes with a redirect of ours, and only words we know are shown.
    fn done(mut self, word: &str) -> Self {
        self.done = DONE.iter().find(|(known, _)| *known == word).map(|(_, text)| *text);
        self
    }
}

const DONE: [(&str, &str); 11] = [
    ("follow-up", "The entry is followed up: it has left the worklist."),
    ("egress", "The pool is changed."),
    ("replay", "The replay was started."),
    ("hold", "The entry is held now: nothing is sent until it is released."),
    ("release", "The entry is released: it is stored again and due at once."),
    (
        "release-all",
        "They are released: stored again and due at once. What is still listed came later, or was changed meanwhile.",
    ),
    ("write-off", "The entry is written off: it is never sent."),
    ("mode", "The mode is set."),
    ("reload", "The configuration was read again."),
    ("start", "The replay run was started."),
    ("stop", "The replay run ends: what is in flight finishes."),
];

/// Why a page cannot be shown, as a page.
struct Failed(Problem);

impl From<Problem> for Failed {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<crate::store::StoreError> for Failed {
    fn from(error: crate::store::StoreError) -> Self {
        Self(error.into())
    }
}

#[derive(Template)]
#[template(path = "failed.html")]
struct FailedPage {
    problem: Problem,
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = self.0.code();
        let page = FailedPage { problem: self.0 };
        (status, html(&page)).into_response()
    }
}

/// For people a page, for programs a problem.
pub(super) async fn not_found(headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let problem = Problem::no_such("page");
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        Failed(problem).into_response()
    } else {
        problem.into_response()
    }
}

type Shown = Result<Response, Failed>;

fn html(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => Html(text).into_response(),
        Err(_) => Problem::unavailable("the page could not be written").into_response(),
    }
}

/// After a change: see the page again by GET, so that reloading does not do it twice.
fn back_to(address: &str, done: &str) -> Response {
    Redirect::to(&format!("{address}?done={done}")).into_response()
}

/// What a confirm page asks, and what the answer does.
#[derive(Template)]
#[template(path = "confirm.html")]
struct Confirm {
    frame: Frame,
    /// "Write off 7K3M-Q2XD?"
    question: String,
    /// What it will do, a sentence each.
    means: Vec<String>,
    /// Where the answer is posted.
    action: String,
    /// What is posted with the reason.
    hidden: Vec<(&'static str, String)>,
    button: &'static str,
    /// Whether it cannot be taken back, or hurts.
    grave: bool,
    back: String,
    /// A field for a time: its name, label, and what it says at first.
    time: Option<(&'static str, &'static str, String)>,
    /// False: shows only why it cannot be done.
    possible: bool,
}

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");
const ICON: &str = include_str!("page/icon.svg");

async fn asset(Path(name): Path<String>) -> Response {
    let (kind, text) = match &*name {
        "page.css" => ("text/css; charset=utf-8", STYLE),
        "page.js" => ("text/javascript; charset=utf-8", SCRIPT),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return Problem::no_such("page").into_response(),
    };
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
}
