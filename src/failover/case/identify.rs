//! Whose request it is, and what makes another the same.

use http::HeaderValue;

use super::Case;
use crate::{
    config::{DedupesBy, Role},
    failover::Refusal,
    stand_in::{IDEMPOTENCY_KEY, Identified},
};

impl Case {
    /// Whose request, and what makes another the same. Every attempt carries the id and the key.
    pub(super) fn identify(&mut self) -> Result<Identified, Refusal> {
        let body = self.body.as_ref().and_then(Option::as_ref);
        let given = self.head.headers.get(&self.failover.0.shared.request_id).cloned();
        let id = given.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
        let mut who = self
            .policy
            .identify(&self.asked(id), body.map(|body| &body.bytes[..]))
            .map_err(Refusal::BadKey)?;
        if self.failover.0.shared.role == Role::Standby {
            // Whoever sent it here may have sent it to the app under this id before: the app must know it again.
            id.clone_into(&mut who.request_id);
        }
        if who.request_id != id
            && let Ok(value) = HeaderValue::from_str(&who.request_id)
        {
            self.head.headers.insert(self.failover.0.shared.request_id.clone(), value);
            self.has_another_id = true;
        }
        if self.replaces_keys(&who) || !who.has_clients_key {
            // Mostly the id, which is there as a field's value already.
            let key = match given {
                Some(given) if given == *who.identity.key_text => Some(given),
                _ => HeaderValue::from_bytes(who.identity.key_text.as_bytes()).ok(),
            };
            if let Some(key) = key {
                self.head.headers.insert(IDEMPOTENCY_KEY, key);
            }
        }
        Ok(who)
    }

    /// The app knows duplicates by the key, and the route knows better than its clients which those are: a client may
    /// give each try of one order a key of its own.
    fn replaces_keys(&self, who: &Identified) -> bool {
        let dedupes = self.route.config.app_dedupes.as_ref();
        who.by_route && dedupes.is_some_and(|dedupes| dedupes.by == DedupesBy::IdempotencyKey)
    }
}
