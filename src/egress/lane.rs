//! The way of one route's jobs into a pool: its rule, and what makes two of them one session.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{
    pool::{Job, Pool},
    rules::Rule,
    sessions::SessionKey,
};
use crate::{
    config::RouteConfig,
    expr::{Expr, Facts},
    stand_in::identity,
};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lane {
    pub pool: Arc<Pool>,
    job: Job,
    session: Option<Expr>,
    principal: Option<Expr>,
}

impl Lane {
    /// For a route, or for what no route takes.
    pub fn new(pool: &Arc<Pool>, route: Option<(&str, &RouteConfig)>) -> Self {
        let egress = route.map(|(_, config)| config.egress.clone()).unwrap_or_default();
        let rule = Rule {
            route: route.map(|(name, _)| name.into()),
            only: egress.only,
            deny: egress.deny,
        };
        Self {
            job: pool.job(rule),
            session: egress.session.or_else(|| pool.config.session.clone()),
            principal: route.and_then(|(_, config)| config.principal.clone()),
            pool: Arc::clone(pool),
        }
    }

    /// A job of standin's own: no session.
    pub fn plain(&self) -> Job {
        self.job
    }

    /// The job of a request. One for which `session` gives nothing belongs to no session.
    pub fn job(&self, facts: &Facts<'_>) -> Job {
        let Some(session) = &self.session else { return self.job };
        let principal = match facts.principal {
            "" => identity::principal(self.principal.as_ref(), facts).unwrap_or_default(),
            known => known.to_owned(),
        };
        let text = session.to_text(&Facts { principal: &principal, ..*facts });
        Job { session: text.ok().map(|text| SessionKey::of(&text)), ..self.job }
    }
}

impl SessionKey {
    fn of(text: &str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        Self(digest.iter().take(16).fold(0, |key, byte| key << 8 | u128::from(*byte)))
    }
}
