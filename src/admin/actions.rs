//! What a person may do, for the API and the page alike: each with who and why, each in the audit log.

use std::{str::FromStr as _, sync::Arc, time::Duration};

use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Admin,
    guard::Who,
    problem::Problem,
    view::{ConfigStatus, EgressPoolView, EntryDetail, Impact, RecordDetail, RunStatus, word},
};
use crate::{
    egress::Change,
    mode::{FORCED_LONGEST, Mode},
    replay::RunState,
    store::{AuditLine, Entry, Outcome, PageQuery, Receipt, Scope, Seq, State},
    time::UnixMillis,
};

/// Why a person does it: not empty, at most 500 characters.
#[derive(Clone, Debug)]
pub(crate) struct Why(String);

/// What can be done to one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Replay,
    Hold,
    Release { extend: Option<Duration> },
    WriteOff,
    FollowUp,
}

/// The scope of a replay run: at most one of the three; everything when there is none.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ScopeAsked {
    pub(crate) route: String,
    pub(crate) upstream: String,
    /// A receipt, or the number of an entry.
    pub(crate) entry: String,
}

const WHY_LONGEST: usize = 500;
/// The longest time for which a person lets an egress proxy rest.
const LONGEST_REST: Duration = Duration::from_secs(30 * 24 * 3600);

impl Why {
    pub(crate) fn of(text: &str) -> Result<Self, Problem> {
        let text = text.trim();
        if text.is_empty() {
            return Err(Problem::new(
                axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                "a reason is needed: it goes into the audit log",
            ));
        }
        if text.chars().count() > WHY_LONGEST {
            let why = format!("the reason is longer than {WHY_LONGEST} characters");
            return Err(Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, why));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

impl Admin {
    /// The entry of a receipt (any case, with or without hyphen), or of a number.
    pub(crate) async fn find(&self, id: &str) -> Result<Seq, Problem> {
        let id = id.trim();
        if let Ok(receipt) = id.parse::<Receipt>() {
            let search = Some(receipt.to_string());
            let page =
                self.handles.store.page(PageQuery { search, limit: 10, ..PageQuery::default() });
            if let Some(entry) = page.await?.entries.iter().find(|entry| entry.receipt == receipt) {
                return Ok(entry.seq);
            }
        }
        match i64::from_str(id.trim_start_matches('#')) {
            Ok(seq) if seq > 0 => Ok(Seq(seq)),
            _ => Err(Problem::no_such("entry")),
        }
    }

    pub(crate) async fn entry(&self, id: &str) -> Result<Entry, Problem> {
        Ok(self.handles.store.load(self.find(id).await?).await?)
    }

    pub(crate) async fn detail(&self, id: &str) -> Result<EntryDetail, Problem> {
        let entry = self.entry(id).await?;
        let history = self.handles.store.history(entry.seq).await?;
        Ok(EntryDetail::of(&entry, &history))
    }

    /// Does it; the run if it is a replay.
    pub(crate) async fn act(
        &self,
        id: &str,
        act: Act,
        who: &Who,
        why: &Why,
    ) -> Result<Option<RunStatus>, Problem> {
        let entry = self.entry(id).await?;
        let store = &self.handles.store;
        match act {
            Act::Hold => store.hold(entry.seq, &who.0, &why.0).await?,
            Act::WriteOff => store.write_off(entry.seq, &who.0, &why.0).await?,
            Act::FollowUp => {
                if entry.outcome != Some(Outcome::Declined) {
                    return Err(Problem::conflict("the app has not declined it"));
                }
                if entry.followed_up.is_some() {
                    return Err(Problem::conflict("it was followed up already"));
                }
                store.follow_up(entry.seq, &who.0, &why.0).await?;
            }
            Act::Release { extend } => {
                let extend = extend.unwrap_or_else(|| self.expires_of(&entry.route));
                store.release(entry.seq, extend, &who.0, &why.0).await?;
            }
            Act::Replay => {
                if entry.state != State::Stored {
                    let hint = if entry.state == State::Held { ": release it first" } else { "" };
                    let state = word(&entry.state);
                    return Err(Problem::conflict(format!("the entry is {state}{hint}")));
                }
                let scope = Scope { seq: Some(entry.seq), ..Scope::default() };
                let on = entry.receipt.to_string();
                return Ok(Some(self.start_run(scope, &on, who, why).await?));
            }
        }
        Ok(None)
    }

    /// How long a released entry may still be sent when nothing else is said.
    pub(super) fn expires_of(&self, route: &str) -> Duration {
        let routes = self.handles.routes.now();
        let stand_in = routes.by_name(route).and_then(|route| route.config.stand_in.as_ref());
        stand_in.map_or(Duration::from_secs(24 * 3600), |stand_in| stand_in.expires)
    }

    pub(crate) async fn scope(&self, asked: &ScopeAsked) -> Result<(Scope, String), Problem> {
        match (&*asked.route, &*asked.upstream, &*asked.entry) {
            ("", "", "") => Ok((Scope::default(), "all".into())),
            (route, "", "") => {
                self.must_know_route(route)?;
                let scope = Scope { route: Some(Arc::from(route)), ..Scope::default() };
                Ok((scope, format!("route {route}")))
            }
            ("", upstream, "") => {
                if !self.handles.routes.now().upstreams.iter().any(|u| &*u.name == upstream) {
                    return Err(Problem::no_such("upstream"));
                }
                let scope = Scope { upstream: Some(Arc::from(upstream)), ..Scope::default() };
                Ok((scope, format!("upstream {upstream}")))
            }
            ("", "", entry) => {
                let entry = self.entry(entry).await?;
                let scope = Scope { seq: Some(entry.seq), ..Scope::default() };
                Ok((scope, entry.receipt.to_string()))
            }
            _ => Err(Problem::bad("give at most one of route, upstream and entry")),
        }
    }

    /// Configured, or with entries in the store.
    pub(super) fn must_know_route(&self, route: &str) -> Result<(), Problem> {
        let configured = self.handles.routes.now().by_name(route).is_some();
        if configured || self.handles.store.totals().routes.contains_key(route) {
            return Ok(());
        }
        Err(Problem::no_such("route"))
    }

    pub(crate) fn impact(&self, scope: &Scope) -> Impact {
        Impact { entries: self.handles.store.open_in(scope) }
    }

    /// Starts a run, or joins the running one of the same scope.
    pub(crate) async fn start_run(
        &self,
        scope: Scope,
        on: &str,
        who: &Who,
        why: &Why,
    ) -> Result<RunStatus, Problem> {
        // The audit line goes first: what nobody could write down is not done.
        self.audit("replay", on, who, why).await?;
        Ok(RunStatus::of(&self.handles.replay.start(scope, &who.0, &why.0)))
    }

    pub(crate) async fn stop_run(
        &self,
        id: &str,
        who: &Who,
        why: &Why,
    ) -> Result<RunStatus, Problem> {
        let runs = self.handles.replay.runs();
        let Some(run) = runs.iter().find(|run| run.id == id) else {
            return Err(Problem::no_such("replay run"));
        };
        if !matches!(run.state, RunState::Running | RunState::Waiting(_)) {
            return Err(Problem::conflict("the run has ended already"));
        }
        self.audit("stop replay", &run.scope, who, why).await?;
        if !self.handles.replay.stop(id, &who.0, &why.0) {
            return Err(Problem::conflict("the run has ended already"));
        }
        let runs = self.handles.replay.runs();
        runs.iter()
            .find(|run| run.id == id)
            .map(RunStatus::of)
            .ok_or(Problem::no_such("replay run"))
    }

    pub(crate) async fn set_mode(
        &self,
        route: Option<&str>,
        mode: Mode,
        for_time: Option<Duration>,
        who: &Who,
        why: &Why,
    ) -> Result<(), Problem> {
        if let Some(route) = route
            && self.handles.routes.now().by_name(route).is_none()
        {
            return Err(Problem::no_such("route"));
        }
        if mode == Mode::Auto && for_time.is_some() {
            return Err(Problem::bad("`auto` has no end"));
        }
        if mode == Mode::Forced
            && for_time.is_some_and(|time| time > FORCED_LONGEST || time.is_zero())
        {
            return Err(Problem::bad("`forced` lasts for a time, 24 h at most"));
        }
        Ok(self.handles.modes.set(route, mode, for_time, &who.0, &why.0).await?)
    }

    /// Reads the configuration again. Audited where it is done.
    pub(crate) async fn reload(&self, who: &Who, why: &Why) -> Result<ConfigStatus, Problem> {
        let ending = || Problem::unavailable("standin is ending, or was started without a file");
        let attempt = self.handles.reload.ask(&who.0, &why.0).await.ok_or_else(ending)?;
        match attempt.result {
            Ok(_) => Ok(ConfigStatus::of(&self.handles.reload.state())),
            Err(refused) => {
                Err(Problem::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, refused))
            }
        }
    }

    /// One record of a failed exchange; that somebody looked is written down before.
    pub(crate) async fn record(&self, id: &str, who: &Who) -> Result<RecordDetail, Problem> {
        let found = id.parse().ok().and_then(|id| self.handles.records.get(id));
        let found = found.ok_or_else(|| Problem::no_such("record"))?;
        let why = Why(format!("looked at a failed exchange of {}", found.route));
        self.audit("record", &found.request_id, who, &why).await?;
        Ok(RecordDetail::of(&found))
    }

    /// Whose bytes left in the clear is written down before they do.
    pub(crate) async fn audit_download(
        &self,
        what: &str,
        on: &Receipt,
        who: &Who,
    ) -> Result<(), Problem> {
        let why = Why(format!("downloaded the body of the {what}"));
        self.audit("download", &on.to_string(), who, &why).await
    }

    pub(crate) fn egress_pool(&self, name: &str) -> Result<EgressPoolView, Problem> {
        let pool = self.handles.routes.now().egress.get(name).cloned();
        let pool = pool.ok_or_else(|| Problem::no_such("egress pool"))?;
        Ok(EgressPoolView::of(&self.handles, &pool.snapshot()))
    }

    /// Changes a pool; how it stands then.
    pub(crate) async fn change_egress(
        &self,
        pool: &str,
        proxy: &str,
        generation: Option<u64>,
        change: Change,
        who: &Who,
        why: &Why,
    ) -> Result<EgressPoolView, Problem> {
        let of = self.handles.routes.now().egress.get(pool).cloned();
        let of = of.ok_or_else(|| Problem::no_such("egress pool"))?;
        match change {
            Change::Cool(time) if time.is_zero() || time > LONGEST_REST => {
                return Err(Problem::bad("a proxy rests at most 30 days"));
            }
            Change::Add { ref only_for, .. } => {
                let routes = self.handles.routes.now();
                if only_for.iter().any(|name| routes.by_name(name).is_none()) {
                    return Err(Problem::no_such("route"));
                }
            }
            _ => {}
        }
        of.change(&self.handles.store, proxy, generation, change, &who.0, &why.0).await?;
        self.egress_pool(pool)
    }

    pub(super) async fn audit(
        &self,
        what: &str,
        on: &str,
        who: &Who,
        why: &Why,
    ) -> Result<(), Problem> {
        let line = AuditLine {
            at: UnixMillis::now(),
            who: who.0.clone(),
            what: what.into(),
            on: on.into(),
            why: why.0.clone(),
        };
        Ok(self.handles.store.audit(line).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_needed_and_bounded() {
        assert_eq!(Why::of(" \n ").unwrap_err().status, 422);
        assert_eq!(Why::of(&"x".repeat(501)).unwrap_err().status, 422);
        assert_eq!(Why::of(&"ü".repeat(500)).unwrap().0.chars().count(), 500);
    }
}
