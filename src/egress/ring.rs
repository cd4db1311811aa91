//! Whose turn it is. Pure: no clock, no lock, no IO.
//!
//! The proxies stand in a ring in the order in which they came, and each group of jobs that take the same ones has a
//! hand on it: the next one is the first behind the hand that may be taken now. The hand never goes back, so between
//! two turns of one proxy every other one that could be taken all the while has exactly one. Who comes or comes back
//! stands where the hand has yet to pass, gets one turn each time round and catches nothing up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    list::Listed,
    member::{Member, MemberId, Origin, Said, Uses},
    proxy::Proxy,
    rules::{Group, Rule, RuleId, Rules},
    sessions::{SessionKey, Sessions},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Ring {
    /// By number, which is the order of the ring.
    members: Vec<Member>,
    retired: BTreeMap<Arc<str>, Retired>,
    pub(super) sessions: Sessions,
    rules: Rules,
    hands: HashMap<Group, MemberId>,
    /// The member taken last, by whatever group: where a new group begins.
    last: MemberId,
    newest: MemberId,
    /// How often any member did its work.
    pub(super) worked: u64,
}

/// A proxy that is never used again, and what is left of it.
#[derive(Clone, Debug)]
pub(super) struct Retired {
    pub(super) said: Said,
    /// Only a person lets it in again, as another member. Else the list that is followed may.
    pub(super) for_good: bool,
    pub(super) uses: Option<Arc<Uses>>,
    pub(super) id: Option<MemberId>,
}

/// Which proxy a job takes.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) id: MemberId,
    pub(super) proxy: Arc<Proxy>,
    pub(super) uses: Arc<Uses>,
}

/// No proxy may be taken now; the first that rests may be again then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoneFree {
    pub(super) until: Option<Instant>,
}

/// What a list changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Synced {
    pub(super) added: Vec<Arc<str>>,
    pub(super) retired: Vec<Arc<str>>,
    pub(super) changed: Vec<Arc<str>>,
    /// In the list, but a person retired them.
    pub(super) barred: Vec<Arc<str>>,
}

impl Ring {
    pub(super) fn new(sessions: Sessions) -> Self {
        let mut rules = Rules::default();
        rules.add(Rule::default());
        Self {
            members: Vec::new(),
            retired: BTreeMap::new(),
            sessions,
            rules,
            hands: HashMap::new(),
            last: 0,
            newest: 0,
            worked: 0,
        }
    }

    /// The rule's place, for all later calls.
    pub(super) fn rule(&mut self, rule: Rule) -> RuleId {
        let id = self.rules.add(rule);
        self.proxies_changed();
        id
    }

    /// The proxy of the session if it goes on, else the next one. `tried`: those that failed for this job already.
    pub(super) fn take(
        &mut self,
        rule: RuleId,
        session: Option<SessionKey>,
        tried: &[MemberId],
        now: Instant,
    ) -> Result<Turn, NoneFree> {
        let group = self.rules.group(rule);
        let may = |member: &Member| {
            member.allows.get(rule.0).copied().unwrap_or(false) && !tried.contains(&member.id)
        };
        let bound = session.and_then(|key| self.sessions.member(group, key, now));
        let bound = bound
            .and_then(|id| self.at(id))
            .filter(|&at| self.members[at].goes_on(now) && may(&self.members[at]));
        let at = match bound {
            Some(at) => at,
            None => {
                let hand = self.hands.get(&group).copied().unwrap_or(self.last);
                let behind = self.members.partition_point(|member| member.id <= hand);
                let mut round = (behind..self.members.len()).chain(0..behind);
                let next =
                    round.find(|&at| self.members[at].takes_new(now) && may(&self.members[at]));
                let Some(at) = next else { return Err(self.none_free(rule, now)) };
                self.last = self.members[at].id;
                self.hands.insert(group, self.last);
                at
            }
        };
        let member = &self.members[at];
        let turn = Turn {
            id: member.id,
            proxy: Arc::clone(&member.proxy),
            uses: Arc::clone(&member.uses),
        };
        if let Some(key) = session {
            self.sessions.used(group, key, turn.id, now);
        }
        Ok(turn)
    }

    /// Whether what was begun with this member may go on: it was not retired since.
    pub(super) fn is_member(&self, id: MemberId) -> bool {
        self.at(id).is_some()
    }

    pub(super) fn member(&mut self, id: MemberId) -> Option<&mut Member> {
        self.at(id).map(|at| &mut self.members[at])
    }

    pub(super) fn named(&mut self, name: &str) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| *member.proxy.name == *name)
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn retired(&self) -> &BTreeMap<Arc<str>, Retired> {
        &self.retired
    }

    /// A new member, at the end of the ring. Whoever calls knows that no member has its name.
    pub(super) fn add(&mut self, proxy: Proxy, origin: Origin) -> &mut Member {
        self.retired.remove(&proxy.name);
        self.newest += 1;
        let allows = self.rules.allowing(&proxy);
        self.members.push(Member::new(self.newest, Arc::new(proxy), origin, allows));
        self.proxies_changed();
        self.members.last_mut().expect("it was pushed just now")
    }

    /// Never used again. `for_good`: not even when the list that is followed names it. A name that is no member is
    /// barred all the same.
    pub(super) fn retire(&mut self, name: &str, said: Said, for_good: bool) {
        let member = self.members.iter().position(|member| *member.proxy.name == *name);
        let member = member.map(|at| self.members.remove(at));
        if let Some(member) = &member {
            self.sessions.end_of(member.id);
        }
        let before = self.retired.remove(name);
        let retired = Retired {
            said,
            for_good: for_good || before.is_some_and(|before| before.for_good),
            uses: member.as_ref().map(|member| Arc::clone(&member.uses)),
            id: member.as_ref().map(|member| member.id),
        };
        self.retired.insert(name.into(), retired);
        if self.retired.len() > MOST_RETIRED {
            // What nobody retired by hand may come back by the list; it is only shown here.
            let forgotten = self.retired.iter().find(|(_, retired)| !retired.for_good);
            let forgotten = forgotten.map(|(name, _)| Arc::clone(name));
            forgotten.map(|name| self.retired.remove(&name));
        }
        self.proxies_changed();
    }

    /// Makes the members that came by the list those of `list`. What a person retired meanwhile stays away, however
    /// old the list is.
    pub(super) fn sync(&mut self, list: Vec<Listed>, said: &Said) -> Synced {
        let mut synced = Synced::default();
        let gone: Vec<Arc<str>> = self
            .members
            .iter()
            .filter(|member| member.origin == Origin::Source)
            .filter(|member| !list.iter().any(|listed| listed.proxy.is_at(&member.proxy)))
            .map(|member| Arc::clone(&member.proxy.name))
            .collect();
        for name in &gone {
            self.retire(name, said.clone(), false);
        }
        for Listed { proxy, draining } in list {
            let name = Arc::clone(&proxy.name);
            let is_new = self.named(&name).is_none();
            if is_new {
                if self.retired.get(&name).is_some_and(|retired| retired.for_good) {
                    synced.barred.push(name);
                    continue;
                }
                self.add(proxy, Origin::Source);
                synced.added.push(Arc::clone(&name));
            } else if self.replace(&name, proxy) {
                synced.changed.push(Arc::clone(&name));
            }
            let Some(member) = self.named(&name) else { continue };
            // A person's word stays until the list says something else than before.
            if member.origin == Origin::Source && member.drained_by_source != draining {
                member.drained_by_source = draining;
                member.draining = draining.then(|| said.clone());
                if !is_new {
                    synced.changed.push(name);
                }
            }
        }
        synced.retired = gone.into_iter().filter(|name| self.named(name).is_none()).collect();
        synced.changed.dedup();
        synced
    }

    /// Other credentials or routes for a member that came by the list.
    fn replace(&mut self, name: &str, proxy: Proxy) -> bool {
        let allows = self.rules.allowing(&proxy);
        let Some(member) = self.named(name) else { return false };
        if member.origin != Origin::Source || *member.proxy == proxy {
            return false;
        }
        (member.allows, member.proxy) = (allows, Arc::new(proxy));
        self.proxies_changed();
        true
    }

    fn at(&self, id: MemberId) -> Option<usize> {
        self.members.binary_search_by_key(&id, |member| member.id).ok()
    }

    fn none_free(&self, rule: RuleId, now: Instant) -> NoneFree {
        let allowed = |member: &&Member| member.allows.get(rule.0).copied().unwrap_or(false);
        let resting =
            self.members.iter().filter(allowed).filter(|member| member.draining.is_none());
        let until =
            resting.filter_map(|member| member.cooling.as_ref()).map(|cooling| cooling.until);
        NoneFree { until: until.filter(|until| *until > now).min() }
    }

    fn proxies_changed(&mut self) {
        self.rules.look_at(self.members.iter().map(|member| &*member.proxy));
        for member in &mut self.members {
            member.allows = self.rules.allowing(&member.proxy);
        }
    }
}

/// Names of retired proxies that are remembered; those that a person retired are never forgotten, and bounded apart.
const MOST_RETIRED: usize = 16_384;

#[cfg(test)]
mod tests;
