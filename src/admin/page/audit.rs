//! Who did what, and why.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;

use super::{Frame, Shown, filters, html};
use crate::admin::{Admin, view::AuditView};

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    lines: Vec<AuditView>,
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Shown {
    let lines = admin.handles.store.audit_log(500).await?;
    Ok(html(&Audit {
        frame: Frame::now(&admin, "audit", "Audit"),
        lines: lines.iter().map(AuditView::of).collect(),
    }))
}
