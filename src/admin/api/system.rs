//! The state of the whole, its mode, volumes, the audit log.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::{
    admin::{
        Admin,
        actions::Why,
        filter::{duration, number},
        guard::Who,
        problem::{Problem, Query, Sent},
        view::{AuditView, ConfigStatus, ModesView, Status, VolumeView},
    },
    mode::Mode,
    time::UnixMillis,
};

/// The state sentence, upstreams, routes with their numbers and caps, modes, store.
#[utoipa::path(get, path = "/status", tag = "system", responses((status = 200, body = Status)))]
pub(super) async fn status(State(admin): State<Arc<Admin>>) -> Json<Status> {
    Json(Status::of(&admin.handles, UnixMillis::now()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Days {
    /// 1 to 366; 30 when absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 366)]
    days: String,
}

/// Accepted, completed, declined and written off per UTC day and route, newest first.
#[utoipa::path(get, path = "/volumes", tag = "system", params(Days),
    responses((status = 200, body = Vec<VolumeView>), (status = 400, body = Problem)))]
pub(super) async fn volumes(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Days>,
) -> Result<Json<Vec<VolumeView>>, Problem> {
    let days = number("days", &asked.days, 1..=366)?.unwrap_or(30);
    let volumes = admin.handles.store.volumes(days).await?;
    Ok(Json(volumes.iter().map(VolumeView::of).collect()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Lines {
    /// 1 to 1000; 100 when absent.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: String,
}

/// Who did what and why, newest first.
#[utoipa::path(get, path = "/audit", tag = "system", params(Lines),
    responses((status = 200, body = Vec<AuditView>), (status = 400, body = Problem)))]
pub(super) async fn audit(
    State(admin): State<Arc<Admin>>,
    Query(asked): Query<Lines>,
) -> Result<Json<Vec<AuditView>>, Problem> {
    let limit = number("limit", &asked.limit, 1..=1000)?.unwrap_or(100);
    let lines = admin.handles.store.audit_log(limit).await?;
    Ok(Json(lines.iter().map(AuditView::of).collect()))
}

/// The settings of the mode that hold now.
#[utoipa::path(get, path = "/mode", tag = "mode", responses((status = 200, body = ModesView)))]
pub(super) async fn mode(State(admin): State<Arc<Admin>>) -> Json<ModesView> {
    Json(ModesView::of(&admin.handles, UnixMillis::now()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetMode {
    /// `auto`, `forced` or `pass_through`.
    #[schema(value_type = String)]
    mode: Mode,
    /// All routes when absent.
    route: Option<String>,
    /// How long, for example `1h`; `forced` lasts 1 h when absent, at most 24 h.
    #[serde(rename = "for")]
    for_time: Option<String>,
    /// Why; goes into the audit log.
    reason: String,
}

/// Sets the mode of all routes, or of one.
#[utoipa::path(post, path = "/mode", tag = "mode", request_body = SetMode,
    responses((status = 200, body = ModesView), (status = 422, description = "no reason", body = Problem)))]
pub(super) async fn set_mode(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Sent(asked): Sent<SetMode>,
) -> Result<Json<ModesView>, Problem> {
    let why = Why::of(&asked.reason)?;
    let for_time = duration("for", asked.for_time.as_deref().unwrap_or_default())?;
    let route = asked.route.as_deref().filter(|route| !route.is_empty());
    admin.set_mode(route, asked.mode, for_time, &who, &why).await?;
    Ok(Json(ModesView::of(&admin.handles, UnixMillis::now())))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadAgain {
    /// Why; goes into the audit log.
    reason: String,
}

/// Reads the configuration again: taken up whole, or refused whole and the old one goes on.
#[utoipa::path(post, path = "/reload", tag = "system", request_body = ReadAgain,
    responses((status = 200, body = ConfigStatus), (status = 422, description = "refused: what is wrong, and where", body = Problem)))]
pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Sent(asked): Sent<ReadAgain>,
) -> Result<Json<ConfigStatus>, Problem> {
    Ok(Json(admin.reload(&who, &Why::of(&asked.reason)?).await?))
}
