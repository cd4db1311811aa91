//! Entries: list, one, its bytes, and what a person may do to it.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    admin::{
        Admin,
        actions::{Act, Why},
        filter::{Filter, duration},
        guard::Who,
        problem::{Problem, Query, Sent},
        view::{EntryDetail, EntryList, HistoryView, RunStatus},
    },
    time::UnixMillis,
};

/// Entries, newest first, a page at a time.
#[utoipa::path(get, path = "/entries", tag = "entries", params(Filter),
    responses((status = 200, body = EntryList), (status = 400, body = Problem)))]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(filter): Query<Filter>,
) -> Result<Json<EntryList>, Problem> {
    let page = admin.handles.store.page(filter.query(UnixMillis::now())?).await?;
    Ok(Json(EntryList::of(&page)))
}

/// One entry with its history; credentials are not shown.
#[utoipa::path(get, path = "/entries/{id}", tag = "entries",
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, body = EntryDetail), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Json<EntryDetail>, Problem> {
    Ok(Json(admin.detail(&id).await?))
}

/// Every change of an entry, oldest first.
#[utoipa::path(get, path = "/entries/{id}/history", tag = "entries",
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, body = Vec<HistoryView>), (status = 404, body = Problem)))]
pub(super) async fn history(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<String>,
) -> Result<Json<Vec<HistoryView>>, Problem> {
    let history = admin.handles.store.history(admin.find(&id).await?).await?;
    Ok(Json(history.iter().map(HistoryView::of).collect()))
}

/// The body of the stored request, byte for byte, as a download. Goes into the audit log.
#[utoipa::path(get, path = "/entries/{id}/request", tag = "entries",
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, content_type = "text/plain", body = Vec<u8>), (status = 404, body = Problem)))]
pub(super) async fn request(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let entry = admin.entry(&id).await?;
    admin.audit_download("request", &entry.receipt, &who).await?;
    Ok(download(&format!("{}-request", entry.receipt), entry.request.body))
}

/// The body of the answer its client got, byte for byte, as a download. Goes into the audit log.
#[utoipa::path(get, path = "/entries/{id}/answer", tag = "entries",
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, content_type = "text/plain", body = Vec<u8>), (status = 404, body = Problem)))]
pub(super) async fn answer(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let entry = admin.entry(&id).await?;
    admin.audit_download("answer", &entry.receipt, &who).await?;
    Ok(download(&format!("{}-answer", entry.receipt), entry.answer.body))
}

/// Text whatever it is, and never shown by the browser: the bytes are a stranger's.
fn download(name: &str, bytes: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.txt\"")),
    ];
    (headers, bytes).into_response()
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Because {
    /// Why; goes into the audit log.
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Release {
    /// Why; goes into the audit log.
    reason: String,
    /// For how long it may be sent again if it is expired, for example `24h`; the route's `expires` when absent.
    extend: Option<String>,
}

/// Starts the replay of one stored entry.
#[utoipa::path(post, path = "/entries/{id}/replay", tag = "entries", request_body = Because,
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 202, body = RunStatus), (status = 404, body = Problem),
        (status = 409, description = "not stored", body = Problem), (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn replay(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Sent(asked): Sent<Because>,
) -> Result<Response, Problem> {
    let why = Why::of(&asked.reason)?;
    let run = admin.act(&id, Act::Replay, &who, &why).await?;
    Ok((StatusCode::ACCEPTED, Json(run)).into_response())
}

/// Holds a stored entry: nothing is sent until it is released.
#[utoipa::path(post, path = "/entries/{id}/hold", tag = "entries", request_body = Because,
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, body = EntryDetail), (status = 404, body = Problem),
        (status = 409, description = "not stored", body = Problem), (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn hold(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Sent(asked): Sent<Because>,
) -> Result<Json<EntryDetail>, Problem> {
    done(&admin, &id, Act::Hold, &who, &asked.reason).await
}

/// Gives a held entry back to replay, due at once.
#[utoipa::path(post, path = "/entries/{id}/release", tag = "entries", request_body = Release,
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, body = EntryDetail), (status = 404, body = Problem),
        (status = 409, description = "not held", body = Problem), (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn release(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Sent(asked): Sent<Release>,
) -> Result<Json<EntryDetail>, Problem> {
    let extend = duration("extend", asked.extend.as_deref().unwrap_or_default())?;
    done(&admin, &id, Act::Release { extend }, &who, &asked.reason).await
}

/// Gives an entry up for good: it is never sent.
#[utoipa::path(post, path = "/entries/{id}/write-off", tag = "entries", request_body = Because,
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, body = EntryDetail), (status = 404, body = Problem),
        (status = 409, description = "not stored or held", body = Problem), (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn write_off(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Sent(asked): Sent<Because>,
) -> Result<Json<EntryDetail>, Problem> {
    done(&admin, &id, Act::WriteOff, &who, &asked.reason).await
}

/// Says that a person has done what there was to do about a declined entry: it leaves the worklist, and stays declined.
#[utoipa::path(post, path = "/entries/{id}/follow-up", tag = "entries", request_body = Because,
    params(("id", description = "receipt, or number of the entry")),
    responses((status = 200, body = EntryDetail), (status = 404, body = Problem),
        (status = 409, description = "not declined, or followed up already", body = Problem),
        (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn follow_up(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
    Sent(asked): Sent<Because>,
) -> Result<Json<EntryDetail>, Problem> {
    done(&admin, &id, Act::FollowUp, &who, &asked.reason).await
}

async fn done(
    admin: &Admin,
    id: &str,
    act: Act,
    who: &Who,
    reason: &str,
) -> Result<Json<EntryDetail>, Problem> {
    admin.act(id, act, who, &Why::of(reason)?).await?;
    Ok(Json(admin.detail(id).await?))
}
