//! Failed exchanges that were kept for support.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, State},
};

use crate::admin::{
    Admin,
    guard::Who,
    problem::Problem,
    view::{RecordDetail, RecordList},
};

/// Failed exchanges of routes with `watch.record`, newest first.
#[utoipa::path(get, path = "/records", tag = "records", responses((status = 200, body = RecordList)))]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Json<RecordList> {
    Json(RecordList::of(&admin.handles.records))
}

/// One failed exchange, with what was said in it. Goes into the audit log.
#[utoipa::path(get, path = "/records/{number}", tag = "records",
    params(("number", description = "number of the record")),
    responses((status = 200, body = RecordDetail), (status = 404, body = Problem)))]
pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(number): Path<String>,
) -> Result<Json<RecordDetail>, Problem> {
    Ok(Json(admin.record(&number, &who).await?))
}
