//! Asks whether the app is back while it is down, whether it is there at all when requests of a route fail, and endpoints
//! whether they are back while they are ejected; publishes the answers through breaker and ejection. A task of the
//! server.

use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, Request, StatusCode};

use super::{
    Condition, Connections, in_flight,
    request_body::{Progress, RequestBody},
    tries::How,
};

/// Runs until dropped. At start it asks once whether the app answers at all; then only while something is down, unless
/// it is to ask always.
pub async fn watch(connections: Connections) {
    tokio::select! {
        () = keep_asking(&connections) => {}
        () = connections.keep_reaping() => {}
    }
}

async fn keep_asking(connections: &Connections) {
    let upstream = connections.upstream().clone();
    let mut condition = upstream.condition();
    loop {
        let now = condition.borrow_and_update().clone();
        let all = || (0..upstream.endpoints.len()).collect();
        let to_ask: Vec<usize> = match now {
            Condition::Unknown | Condition::Down { .. } => all(),
            Condition::Up | Condition::Probing { .. } if upstream.config.health.always => all(),
            Condition::Up | Condition::Probing { .. } => {
                upstream.endpoints.outside(&upstream.config)
            }
        };
        if to_ask.is_empty() {
            tokio::select! {
                changed = condition.changed() => if changed.is_err() { return },
                () = upstream.endpoints.somebody_ejected() => {}
                () = upstream.is_suspected() => look_into(connections).await,
            }
            continue;
        }
        let any_answers = ask_all(connections, &to_ask).await;
        match now {
            Condition::Unknown if any_answers => upstream.is_there(),
            Condition::Down { .. } if any_answers => upstream.is_healthy(),
            _ => {}
        }
        tokio::select! {
            () = tokio::time::sleep(upstream.config.health.interval) => {}
            () = upstream.is_suspected() => look_into(connections).await,
        }
    }
}

/// Requests of a route fail: is it the route or the app?
async fn look_into(connections: &Connections) {
    let upstream = connections.upstream();
    let is_down = matches!(*upstream.condition.borrow(), Condition::Down { .. });
    let all: Vec<usize> = (0..upstream.endpoints.len()).collect();
    if !is_down && !ask_all(connections, &all).await {
        upstream.suspicion_holds();
    }
}

/// Each endpoint is told what it answered. Whether any did.
async fn ask_all(connections: &Connections, endpoints: &[usize]) -> bool {
    let answers = join_all(endpoints.iter().map(|at| answers(connections, *at))).await;
    if connections.upstream().endpoints.are_several() {
        for (at, answered) in endpoints.iter().zip(&answers) {
            connections.upstream().endpoint_asked(*at, *answered);
        }
    }
    answers.contains(&true)
}

/// Any HTTP answer at all; with a health path a 2xx. A connection alone is not enough: an app that hangs takes it, too.
async fn answers(connections: &Connections, endpoint: usize) -> bool {
    match connections.upstream().config.health.path {
        Some(_) => {
            ask(connections, endpoint, Method::GET).await.is_some_and(|status| status.is_success())
        }
        None => ask(connections, endpoint, Method::HEAD)
            .await
            .is_some_and(|status| !in_flight::is_gateways(status)),
    }
}

/// Nobody waits for a question; the next one follows.
const HOW: How = How { fresh: false, twice: false };

/// One question, past the breaker and the choice of endpoints.
async fn ask(connections: &Connections, endpoint: usize, method: Method) -> Option<StatusCode> {
    let upstream = connections.upstream();
    let path = upstream.config.health.path.as_deref().unwrap_or("/");
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, &upstream.endpoints.get(endpoint).authority)
        .header(http::header::USER_AGENT, "standin-health")
        .body(RequestBody::Empty)
        .ok()?;
    let progress = Progress::default();
    progress.set_whole();
    let limit: Duration = upstream.config.health.timeout;
    let mut request = Some(request);
    let sent = connections.send_to(endpoint, &mut request, &progress, HOW);
    let (answer, connection) = tokio::time::timeout(limit, sent).await.ok()?.ok()?;
    let answer = connections.with_body(answer, connection);
    upstream.look_for_proxy(answer.headers());
    // Without a body its connection is kept for the next question.
    Some(answer.status())
}
