//! Remembers over restarts which apps are down: a standin that starts in the middle of an outage goes on standing in,
//! while one that never saw its app answer does not begin.

use std::sync::Arc;

use crate::{
    config::{StandInOn, Trigger},
    router::{Route, Routes},
    store::{Scope, Store},
    time::UnixMillis,
    upstream::{Condition, Upstream},
};

/// Under this prefix and the name of the upstream the store remembers since when it is down; empty: it is not.
const REMEMBERED: &str = "outage/";

/// Takes up what was going on before the start.
pub(super) async fn recall(routes: &Routes, store: &Store) {
    let remembered = store.recall_all(REMEMBERED).await.unwrap_or_default();
    for upstream in &routes.upstreams {
        let was_down = remembered.iter().any(|(name, since)| {
            name.strip_prefix(REMEMBERED) == Some(&*upstream.name) && !since.is_empty()
        });
        let waits = |route: &Arc<Route>| {
            let upstream = Some(Arc::clone(&upstream.name));
            let scope = Scope { route: Some(Arc::clone(&route.name)), upstream, seq: None };
            store.open_in(&scope) > 0
        };
        if was_down || routes.all.iter().filter(|route| waits_for_app(route)).any(waits) {
            upstream.outage_goes_on();
        }
    }
}

/// Its stored entries are there because the app was not; elsewhere they wait for a person, or were never asked about.
fn waits_for_app(route: &Route) -> bool {
    route.config.replay.trigger == Trigger::Auto
        && !route.config.stands_in_on().contains(&StandInOn::Always)
}

/// Writes down when an app goes and when it is back. Runs until dropped.
pub(super) async fn remember(upstream: Arc<Upstream>, store: Store) {
    let name = format!("{REMEMBERED}{}", upstream.name);
    let mut condition = upstream.condition();
    let mut written: Option<bool> = None;
    while condition.changed().await.is_ok() {
        let down = match *condition.borrow_and_update() {
            Condition::Unknown => continue,
            Condition::Up => false,
            Condition::Down { .. } | Condition::Probing { .. } => true,
        };
        if written == Some(down) {
            continue;
        }
        let since = if down { UnixMillis::now().0.to_string() } else { String::new() };
        match store.remember(&name, &since).await {
            Ok(()) => written = Some(down),
            Err(error) => {
                tracing::debug!(upstream = &*upstream.name, %error, "the outage is not remembered")
            }
        }
    }
}
