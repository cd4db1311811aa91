//! Replay runs: list, start, stop, and their live progress as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time,
};
use utoipa::ToSchema;

use crate::admin::{
    Admin,
    actions::{ScopeAsked, Why},
    guard::Who,
    problem::{Problem, Query, Sent},
    view::{Impact, RunList, RunStatus},
};

/// Running and recent runs, newest first.
#[utoipa::path(get, path = "/replay/runs", tag = "replay", responses((status = 200, body = RunList)))]
pub(super) async fn runs(State(admin): State<Arc<Admin>>) -> Json<RunList> {
    Json(RunList::of(&admin.handles.replay.runs()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StartReplay {
    /// At most one of route, upstream and entry; everything when there is none.
    #[serde(default)]
    route: String,
    #[serde(default)]
    upstream: String,
    /// A receipt, or the number of an entry.
    #[serde(default)]
    entry: String,
    /// Why; goes into the audit log.
    reason: String,
}

/// Starts a run, or returns the running one of the same scope.
#[utoipa::path(post, path = "/replay/runs", tag = "replay", request_body = StartReplay,
    responses((status = 202, body = RunStatus), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn start(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Sent(asked): Sent<StartReplay>,
) -> Result<impl IntoResponse, Problem> {
    let why = Why::of(&asked.reason)?;
    let StartReplay { route, upstream, entry, .. } = asked;
    let (scope, on) = admin.scope(&ScopeAsked { route, upstream, entry }).await?;
    Ok((StatusCode::ACCEPTED, Json(admin.start_run(scope, &on, &who, &why).await?)))
}

/// How many entries a run of this scope would take now.
#[utoipa::path(get, path = "/replay/impact", tag = "replay", params(ScopeAsked),
    responses((status = 200, body = Impact), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(super) async fn impact(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<ScopeAsked>,
) -> Result<Json<Impact>, Problem> {
    let (scope, _) = admin.scope(&asked).await?;
    Ok(Json(admin.impact(&scope)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopReplay {
    /// Why; goes into the audit log.
    reason: String,
}

/// Ends a run: sends in flight finish, everything else stays stored.
#[utoipa::path(post, path = "/replay/runs/{id}/stop", tag = "replay", request_body = StopReplay,
    params(("id", description = "id of the run")),
    responses((status = 200, body = RunStatus), (status = 404, body = Problem),
        (status = 409, description = "ended already", body = Problem), (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn stop(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Sent(asked): Sent<StopReplay>,
) -> Result<Json<RunStatus>, Problem> {
    Ok(Json(admin.stop_run(&id, &who, &Why::of(&asked.reason)?).await?))
}

/// Live progress: an event `runs` with the list of runs, at once and after every change, at most five a second; a
/// comment every 15 s in between.
#[utoipa::path(get, path = "/replay/events", tag = "replay",
    responses((status = 200, content_type = "text/event-stream", body = RunList),
        (status = 503, description = "too many streams", body = Problem)))]
pub(super) async fn events(State(admin): State<Arc<Admin>>) -> Result<impl IntoResponse, Problem> {
    let Ok(place) = Arc::clone(&admin.streams).try_acquire_owned() else {
        return Err(Problem::unavailable("too many event streams are open"));
    };
    let changes = admin.handles.replay.changes();
    let progress =
        Progress { closing: admin.closing.clone(), changes, last: None, admin, _place: place };
    let events = progress.events();
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

const HEARTBEAT: Duration = Duration::from_secs(15);
/// Shortest time between two events of one stream.
const BETWEEN: Duration = Duration::from_millis(200);

struct Progress {
    admin: Arc<Admin>,
    changes: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    last: Option<RunList>,
    /// Given back when the stream is dropped.
    _place: OwnedSemaphorePermit,
}

impl Progress {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut progress| async move {
            let list = progress.next().await?;
            let event = Event::default().event("runs").json_data(&list).unwrap_or_default();
            progress.last = Some(list);
            Some((Ok(event), progress))
        })
    }

    /// The next list that is news; none when the listener or the replayer ends.
    async fn next(&mut self) -> Option<RunList> {
        loop {
            if self.last.is_some() {
                let mut closing = self.closing.clone();
                tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => return None,
                    changed = self.changes.changed() => changed.ok()?,
                }
                time::sleep(BETWEEN).await;
            }
            self.changes.mark_unchanged();
            let list = RunList::of(&self.admin.handles.replay.runs());
            if self.last.as_ref() != Some(&list) {
                return Some(list);
            }
        }
    }
}
