//! Failed exchanges that were kept for support. Looking at one goes into the audit log.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
};

use super::{Frame, Shown, filters, html};
use crate::admin::{
    Admin,
    guard::Who,
    view::{RecordDetail, RecordList},
};

#[derive(Template)]
#[template(path = "records.html")]
struct List {
    frame: Frame,
    list: RecordList,
}

#[derive(Template)]
#[template(path = "record.html")]
struct One {
    frame: Frame,
    record: RecordDetail,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Shown {
    let frame = Frame::now(&admin, "records", "Failed exchanges");
    Ok(html(&List { frame, list: RecordList::of(&admin.handles.records) }))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(id): Path<String>,
) -> Shown {
    let record = admin.record(&id, &who).await?;
    let frame = Frame::now(&admin, "records", format!("Failed exchange {}", record.summary.id));
    Ok(html(&One { frame, record }))
}
