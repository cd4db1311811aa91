//! Entries that nothing can send any more: their route or their upstream is not configured. They are held for a person.

use super::Parts;
use crate::{
    store::{HeldReason, Scope, Seq, StoreError},
    time::UnixMillis,
};

/// Holds some of them, a bounded number at a time.
pub(super) async fn hold_orphans(parts: Parts) {
    for (seq, why) in orphans(&parts) {
        let Some(lease) = parts.store.lease(seq) else { continue };
        match parts.store.hold_leased(lease, HeldReason::RouteGone, &why).await {
            Ok(()) => tracing::warn!(entry = seq.0, why, "an entry is held"),
            Err(StoreError::Moved(_)) => {}
            Err(error) => {
                tracing::warn!(%error, "an entry could not be held");
                return;
            }
        }
    }
}

fn orphans(parts: &Parts) -> Vec<(Seq, String)> {
    let mut found = Vec::new();
    let routes = parts.routes.now();
    for (name, totals) in parts.store.totals().routes {
        if totals.open == totals.held {
            continue;
        }
        let of_route = Scope { route: Some(name.clone()), ..Scope::default() };
        // Whether due or not: nothing is sent here.
        let stored = |scope: &Scope| parts.store.due(scope, UnixMillis(i64::MAX), AT_A_TIME);
        if routes.by_name(&name).is_none() {
            let why = format!("there is no route `{name}`");
            found.extend(stored(&of_route).into_iter().map(|seq| (seq, why.clone())));
            continue;
        }
        let of_upstream =
            |upstream, seq| Scope { upstream: Some(upstream), seq, ..of_route.clone() };
        let upstreams = || routes.upstreams.iter().map(|upstream| upstream.name.clone());
        let known: u64 =
            upstreams().map(|name| parts.store.open_in(&of_upstream(name, None))).sum();
        if known < parts.store.open_in(&of_route) {
            let strays = stored(&of_route).into_iter().filter(|seq| {
                upstreams().all(|name| parts.store.open_in(&of_upstream(name, Some(*seq))) == 0)
            });
            let why = "there is no upstream of the name it was received for";
            found.extend(strays.map(|seq| (seq, why.to_owned())));
        }
    }
    found
}

const AT_A_TIME: usize = 256;
