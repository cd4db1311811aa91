//! `/healthz` (alive), `/readyz` (can forward), `/metrics`.
//!
//! Store trouble turns stand-ins off and is shown as degraded; it never takes standin out of rotation, for it can still
//! forward. A standby can do nothing but store: there, and only there, it is not ready.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::{Admin, problem::Problem};
use crate::{config::Role, reload::Attempt, store::Accepting, upstream::Condition};

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

const TEXT: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];

async fn healthz() -> impl IntoResponse {
    (TEXT, "alive\n")
}

async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let handles = &admin.handles;
    let mut status = StatusCode::OK;
    let mut text = String::new();
    if *handles.draining.borrow() {
        status = StatusCode::SERVICE_UNAVAILABLE;
        text.push_str("not ready: draining\n");
    }
    if let Accepting::No(why) = &*handles.store.accepting().borrow() {
        if handles.role == Role::Standby {
            status = StatusCode::SERVICE_UNAVAILABLE;
            let _ =
                writeln!(text, "not ready: the store does not accept: {}", super::text::line(why));
        } else {
            let _ = writeln!(
                text,
                "degraded: no stand-ins, the store does not accept: {}",
                super::text::line(why)
            );
        }
    }
    if let Some(Attempt { result: Err(why), .. }) = handles.reload.state().last {
        let why = why.lines().next().unwrap_or_default();
        let _ = writeln!(
            text,
            "degraded: the new configuration is refused, the old one goes on: {}",
            super::text::line(why)
        );
    }
    for upstream in &handles.routes.now().upstreams {
        if let Condition::Down { cause, .. } = &*upstream.condition().borrow() {
            let _ =
                writeln!(text, "degraded: {} is down: {}", upstream.name, super::text::line(cause));
        }
    }
    if text.is_empty() {
        text.push_str("ready\n");
    }
    (status, TEXT, text)
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Result<impl IntoResponse, Problem> {
    let text = admin
        .metrics
        .encode()
        .map_err(|_| Problem::unavailable("the metrics could not be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text))
}
