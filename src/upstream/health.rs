//! Asks whether the app is back, while it is down; publishes the answer through the breaker. A task of the server.

use std::time::Duration;

use http::{Method, Request, StatusCode};

use super::{
    Condition, Connections,
    request_body::{Progress, RequestBody},
};

/// Runs until dropped. At start it asks once whether the app answers at all; then only while the app is down.
pub async fn watch(connections: Connections) {
    let upstream = connections.upstream().clone();
    let mut condition = upstream.condition();
    loop {
        let now = condition.borrow_and_update().clone();
        match now {
            Condition::Unknown => {
                if answers(&connections).await {
                    upstream.answered();
                }
            }
            Condition::Down { .. } => {
                if answers(&connections).await
                    && let Some(change) = upstream.breaker.healthy()
                {
                    upstream.publish(change);
                }
            }
            Condition::Up | Condition::Probing { .. } => {
                if condition.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        tokio::time::sleep(upstream.config.health.interval).await;
    }
}

/// Any HTTP answer at all; with a health path a 2xx. A connection alone is not enough: an app that hangs takes it, too.
async fn answers(connections: &Connections) -> bool {
    match connections.upstream().config.health.path {
        Some(_) => ask(connections, Method::GET).await.is_some_and(|status| status.is_success()),
        None => {
            ask(connections, Method::HEAD).await.is_some_and(|status| !GATEWAY.contains(&status))
        }
    }
}

/// What a gateway says in front of an app that is not there.
const GATEWAY: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// One question, past the breaker.
async fn ask(connections: &Connections, method: Method) -> Option<StatusCode> {
    let upstream = connections.upstream();
    let path = upstream.config.health.path.as_deref().unwrap_or("/");
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, &upstream.endpoints.get(0).authority)
        .header(http::header::USER_AGENT, "standin-health")
        .body(RequestBody::Empty)
        .ok()?;
    let progress = Progress::default();
    progress.set_whole();
    let limit: Duration = upstream.config.health.timeout;
    let answer = tokio::time::timeout(limit, connections.send(request, &progress)).await;
    answer.ok()?.ok().map(|answer| answer.status())
}
