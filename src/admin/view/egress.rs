//! The pools of egress proxies and how each proxy stands. No user and no password comes this far.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{At, word};
use crate::{
    admin::{Handles, text},
    egress::{Origin, PoolSnapshot, ProxySnapshot, Standing},
};

/// All pools.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EgressView {
    pub pools: Vec<EgressPoolView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EgressPoolView {
    pub name: String,
    /// The upstreams that are reached through it.
    pub upstreams: Vec<String>,
    /// Sessions that go on.
    pub sessions: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<EgressSourceView>,
    /// In the order of their turns; retired ones last.
    pub proxies: Vec<EgressProxyView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EgressProxyView {
    pub name: String,
    /// `active`, `draining`, `cooling` or `retired`.
    #[schema(value_type = String)]
    pub state: Standing,
    /// Tells this stay in the pool from an earlier one of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// `configured`, `source` or `added`; absent once it is retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub origin: Option<Origin>,
    /// Routes to which it belongs alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only_for: Vec<String>,
    /// Why it stands so, who says it and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<At>,
    /// The end of its rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<At>,
    pub sessions: u64,
    /// Requests that were given to it.
    pub requests: u64,
    pub in_flight: u64,
    /// Times it failed itself.
    pub failed: u64,
    /// Answers by which the far side blocked or limited it.
    pub blocked: u64,
}

/// The list that is followed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EgressSourceView {
    /// When it was last taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_at: Option<At>,
    pub listed: u64,
    /// Why it was not taken since: what was taken before holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A pool in numbers.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EgressSummary {
    pub name: String,
    pub active: u64,
    pub draining: u64,
    pub cooling: u64,
    /// Why the list that is followed is not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl EgressView {
    pub(crate) fn of(handles: &Handles) -> Self {
        let pools = handles.routes.now().egress.clone();
        Self {
            pools: pools.iter().map(|pool| EgressPoolView::of(handles, &pool.snapshot())).collect(),
        }
    }
}

impl EgressPoolView {
    pub(crate) fn of(handles: &Handles, pool: &PoolSnapshot) -> Self {
        let routes = handles.routes.now();
        let through = routes.upstreams.iter().filter(|upstream| {
            upstream.egress.as_ref().is_some_and(|lane| lane.pool.name == pool.name)
        });
        Self {
            name: pool.name.to_string(),
            upstreams: through.map(|upstream| upstream.name.to_string()).collect(),
            sessions: pool.sessions,
            source: pool.source.as_ref().map(|source| EgressSourceView {
                taken_at: source.at.map(At),
                listed: source.listed as u64,
                fault: source.fault.as_deref().map(text::line),
            }),
            proxies: pool.proxies.iter().map(EgressProxyView::of).collect(),
        }
    }
}

impl EgressProxyView {
    fn of(proxy: &ProxySnapshot) -> Self {
        let said = proxy.said.as_ref();
        Self {
            name: proxy.name.to_string(),
            state: proxy.standing,
            generation: proxy.generation,
            origin: proxy.origin,
            only_for: proxy.only_for.clone(),
            why: said.map(|said| text::line(&said.why)),
            by: said.map(|said| text::line(&said.by)),
            since: said.map(|said| At(said.at)),
            until: proxy.until.map(At),
            sessions: proxy.sessions,
            requests: proxy.requests,
            in_flight: proxy.in_flight,
            failed: proxy.failed,
            blocked: proxy.blocked,
        }
    }

    pub(crate) fn state_word(&self) -> String {
        word(&self.state)
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.state == Standing::Retired
    }
}

impl EgressSummary {
    pub(super) fn all(handles: &Handles) -> Vec<Self> {
        let pools = handles.routes.now().egress.clone();
        pools
            .iter()
            .map(|pool| {
                let pool = pool.snapshot();
                let count = |standing| {
                    pool.proxies.iter().filter(|proxy| proxy.standing == standing).count() as u64
                };
                Self {
                    name: pool.name.to_string(),
                    active: count(Standing::Active),
                    draining: count(Standing::Draining),
                    cooling: count(Standing::Cooling),
                    fault: pool.source.and_then(|source| source.fault).as_deref().map(text::line),
                }
            })
            .collect()
    }
}
