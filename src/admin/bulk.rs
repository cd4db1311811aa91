//! Gives many held entries back to replay in one go: those that wait for the same reason, where a person who has seen
//! some of them has seen them all. Where each one has to be looked at, it refuses.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::{
    Admin,
    actions::Why,
    guard::Who,
    problem::Problem,
    view::{Released, word},
};
use crate::store::{EntrySummary, HeldReason, Seq, StoreError, Work};

/// Which entries are released.
#[derive(Debug)]
pub(crate) struct AllHeld {
    pub(crate) held: HeldReason,
    /// Only of this route.
    pub(crate) route: Option<String>,
    /// 1 to [`MOST`]; the oldest come first.
    pub(crate) at_most: u64,
    /// For how long expired ones may be sent again; their route's `expires` when absent.
    pub(crate) extend: Option<Duration>,
}

/// Most of one go.
pub(crate) const MOST: u64 = 10_000;
/// Of those, looked up at once.
const PORTION: u32 = 200;
/// Of those, under way at once: they share a commit.
const TOGETHER: usize = 64;

/// Why entries that are held for this reason are looked at one by one; none if they need not be.
pub(crate) fn one_by_one(held: HeldReason) -> Option<&'static str> {
    match held {
        HeldReason::Unclear => Some("whether it was applied has to be looked up for each of them"),
        HeldReason::Unanswered => {
            Some("whether its client has ordered again has to be looked up for each of them")
        }
        HeldReason::Damaged => Some("what is damaged is never sent"),
        HeldReason::Attempts
        | HeldReason::Expired
        | HeldReason::Credentials
        | HeldReason::RouteGone
        | HeldReason::ByPerson => None,
    }
}

impl Admin {
    /// Releases them, oldest first. If the store fails on the way, those before it are released, and the error says how
    /// many they are.
    pub(crate) async fn release_all(
        &self,
        all: &AllHeld,
        who: &Who,
        why: &Why,
    ) -> Result<Released, Problem> {
        let AllHeld { held, route, at_most, .. } = all;
        if let Some(because) = one_by_one(*held) {
            return Err(Problem::conflict(format!("{because}: release them one by one")));
        }
        if !(1..=MOST).contains(at_most) {
            return Err(Problem::bad(format!("`at_most` is a number from 1 to {MOST}")));
        }
        if let Some(route) = route {
            self.must_know_route(route)?;
        }
        let reason = word(held);
        let of = route.as_ref().map(|route| format!(", route {route}")).unwrap_or_default();
        self.audit("release all", &format!("held: {reason}{of}"), who, why).await?;
        let mut done = Released::default();
        let (mut from, mut places) = (Some(Seq(0)), *at_most);
        while let Some(after) = from.filter(|_| places > 0) {
            let page = self.handles.store.work(Work::Held(*held), Some(after), PORTION).await?;
            from = page.more;
            let wanted =
                |entry: &EntrySummary| route.as_ref().is_none_or(|route| *route == *entry.route);
            let mut entries: Vec<_> = page.entries.into_iter().filter(wanted).collect();
            entries.truncate(usize::try_from(places).unwrap_or(usize::MAX));
            places -= entries.len() as u64;
            self.release_page(&entries, all, who, why, &mut done).await?;
        }
        done.left = self.handles.store.work_count(Work::Held(*held));
        Ok(done)
    }

    async fn release_page(
        &self,
        entries: &[EntrySummary],
        all: &AllHeld,
        who: &Who,
        why: &Why,
        done: &mut Released,
    ) -> Result<(), Problem> {
        let release = |entry: &EntrySummary| {
            let extend = all.extend.unwrap_or_else(|| self.expires_of(&entry.route));
            let (store, seq) = (self.handles.store.clone(), entry.seq);
            let (who, why) = (who.0.clone(), why.text().to_owned());
            async move { store.release(seq, extend, &who, &why).await }
        };
        let mut releases = stream::iter(entries.iter().map(release)).buffered(TOGETHER);
        let mut failed = None;
        while let Some(released) = releases.next().await {
            match released {
                Ok(()) => done.released += 1,
                Err(StoreError::Moved(_) | StoreError::NotFound) => done.moved += 1,
                Err(error) => failed = Some(Problem::from(error)),
            }
        }
        let Some(failed) = failed else { return Ok(()) };
        let so_far = format!("{} are released, the others not: {}", done.released, failed.detail);
        Err(Problem::new(failed.code(), so_far))
    }
}
