//! The pools of egress proxies: how each proxy stands, and what people may do to it.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    admin::{
        Admin,
        actions::Why,
        filter::duration,
        guard::Who,
        problem::{Problem, Sent},
        view::{EgressPoolView, EgressView},
    },
    egress::Change,
};

type Shown = Result<Json<EgressPoolView>, Problem>;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeProxy {
    /// Refused unless the proxy is still the one that had it.
    generation: Option<u64>,
    /// Why; goes into the audit log.
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CoolProxy {
    /// How long, for example `10m`; at most 30d.
    #[serde(rename = "for")]
    for_time: String,
    /// Refused unless the proxy is still the one that had it.
    generation: Option<u64>,
    /// Why; goes into the audit log.
    reason: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddProxy {
    /// `http://[USER:PASSWORD@]HOST:PORT[#NAME]`
    url: String,
    /// Routes to which it belongs alone.
    #[serde(default)]
    only_for: Vec<String>,
    /// Why; goes into the audit log.
    reason: String,
}

/// All pools with their proxies; none unless configured.
#[utoipa::path(get, path = "/egress", tag = "egress", responses((status = 200, body = EgressView)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<EgressView> {
    Json(EgressView::of(&admin.handles))
}

/// One pool.
#[utoipa::path(get, path = "/egress/{pool}", tag = "egress", params(("pool" = String, Path)),
    responses((status = 200, body = EgressPoolView), (status = 404, body = Problem)))]
pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(pool): Path<String>) -> Shown {
    Ok(Json(admin.egress_pool(&pool)?))
}

/// Adds a proxy as a new member, even where one of its name was retired.
#[utoipa::path(post, path = "/egress/{pool}/add", tag = "egress", params(("pool" = String, Path)), request_body = AddProxy,
    responses((status = 200, body = EgressPoolView), (status = 409, body = Problem), (status = 422, body = Problem)))]
pub(super) async fn add(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(pool): Path<String>,
    Sent(asked): Sent<AddProxy>,
) -> Shown {
    let why = Why::of(&asked.reason)?;
    let change = Change::Add { url: asked.url, only_for: asked.only_for };
    Ok(Json(admin.change_egress(&pool, "", None, change, &who, &why).await?))
}

/// Its sessions go on, it takes nothing new.
#[utoipa::path(post, path = "/egress/{pool}/{proxy}/drain", tag = "egress",
    params(("pool" = String, Path), ("proxy" = String, Path)), request_body = ChangeProxy,
    responses((status = 200, body = EgressPoolView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn drain(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(place): Path<(String, String)>,
    Sent(asked): Sent<ChangeProxy>,
) -> Shown {
    change(&admin, &who, place, asked, Change::Drain).await
}

/// It is never used again, whatever a list says. What is in flight through it finishes.
#[utoipa::path(post, path = "/egress/{pool}/{proxy}/retire", tag = "egress",
    params(("pool" = String, Path), ("proxy" = String, Path)), request_body = ChangeProxy,
    responses((status = 200, body = EgressPoolView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn retire(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(place): Path<(String, String)>,
    Sent(asked): Sent<ChangeProxy>,
) -> Shown {
    change(&admin, &who, place, asked, Change::Retire).await
}

/// It neither drains nor cools any more.
#[utoipa::path(post, path = "/egress/{pool}/{proxy}/activate", tag = "egress",
    params(("pool" = String, Path), ("proxy" = String, Path)), request_body = ChangeProxy,
    responses((status = 200, body = EgressPoolView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn activate(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(place): Path<(String, String)>,
    Sent(asked): Sent<ChangeProxy>,
) -> Shown {
    change(&admin, &who, place, asked, Change::Activate).await
}

/// It takes nothing for a time.
#[utoipa::path(post, path = "/egress/{pool}/{proxy}/cool", tag = "egress",
    params(("pool" = String, Path), ("proxy" = String, Path)), request_body = CoolProxy,
    responses((status = 200, body = EgressPoolView), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(super) async fn cool(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(place): Path<(String, String)>,
    Sent(asked): Sent<CoolProxy>,
) -> Shown {
    let time = duration("for", &asked.for_time)?;
    let time = time.ok_or_else(|| Problem::bad("for: how long it is to rest"))?;
    let asked = ChangeProxy { generation: asked.generation, reason: asked.reason };
    change(&admin, &who, place, asked, Change::Cool(time)).await
}

async fn change(
    admin: &Admin,
    who: &Who,
    (pool, proxy): (String, String),
    asked: ChangeProxy,
    change: Change,
) -> Shown {
    let why = Why::of(&asked.reason)?;
    Ok(Json(admin.change_egress(&pool, &proxy, asked.generation, change, who, &why).await?))
}
