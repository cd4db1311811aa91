//! What waits for a person for the same reason, and can be decided at once.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::admin::{
    Admin,
    actions::Why,
    bulk::{AllHeld, MOST},
    filter::{duration, one_of},
    guard::Who,
    problem::{Problem, Sent},
    view::Released,
};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReleaseAll {
    /// Why; goes into the audit log, once and for each entry.
    reason: String,
    /// Only entries of this route.
    route: Option<String>,
    /// 1 to 10,000, the oldest first; 10,000 when absent.
    at_most: Option<u64>,
    /// For how long they may be sent again if they are expired, for example `24h`; their route's `expires` when absent.
    extend: Option<String>,
}

/// Gives all entries that are held for a reason back to replay, due at once. Not possible for `unclear`, `unanswered` and
/// `damaged`: each of those has to be looked at.
#[utoipa::path(post, path = "/held/{held}/release", tag = "entries", request_body = ReleaseAll,
    params(("held", description = "`attempts`, `expired`, `credentials`, `route_gone` or `by_person`")),
    responses((status = 200, body = Released), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, description = "to be released one by one", body = Problem),
        (status = 422, description = "no reason", body = Problem),
        (status = 503, description = "the store failed; says how many are released", body = Problem)))]
pub(super) async fn release(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(held): Path<String>,
    Sent(asked): Sent<ReleaseAll>,
) -> Result<Json<Released>, Problem> {
    let why = Why::of(&asked.reason)?;
    let all = AllHeld {
        held: one_of("held", &held)?.ok_or_else(|| Problem::no_such("reason"))?,
        route: asked.route,
        at_most: asked.at_most.unwrap_or(MOST),
        extend: duration("extend", asked.extend.as_deref().unwrap_or_default())?,
    };
    Ok(Json(admin.release_all(&all, &who, &why).await?))
}
