//! What is known of a request before anybody is asked: its key under way, open or remembered; its sequence waiting.

use std::time::Duration;

use super::{Case, Decided};
use crate::{
    failover::Refusal,
    stand_in::{Cause, Identified, StandIn, dedupe::Place},
    store::{Certainty, Digest, HeldReason, KeyState, Outcome, Reason, Seq, SequenceState},
    telemetry::Answered,
    time::UnixMillis,
    upstream::request_body::WaitsFor,
};

/// How long a request waits for another of the same key.
const KEY_WAIT: Duration = Duration::from_secs(10);

/// What a request holds while it is the only one of its kind.
pub(super) struct Turn {
    _of_key: Option<Place>,
    _of_sequence: Option<Place>,
}

impl Case {
    /// One of a key at a time, and one of a sequence: the next waits for the one before, and learns from it. The key
    /// first, then the sequence: nobody holds a sequence and waits for a key.
    pub(super) async fn take_turn(&self, who: &Identified) -> Result<Turn, Refusal> {
        self.progress.waits_for(WaitsFor::Turn);
        let under_way = self.stand_in().under_way();
        let (mut of_key, mut of_sequence) = (None, None);
        if self.others_may_have(who) {
            let place = under_way.enter(who.identity.key, KEY_WAIT).await;
            of_key = Some(place.ok_or(Refusal::StillUnderWay)?);
        }
        if let Some(sequence) = who.sequence {
            let limit = KEY_WAIT.max(self.route.timeout.saturating_mul(2));
            let place = under_way.enter(sequence, limit).await;
            of_sequence = Some(place.ok_or(Refusal::StillUnderWay)?);
        }
        Ok(Turn { _of_key: of_key, _of_sequence: of_sequence })
    }

    /// An answer for a request that was accepted before.
    pub(super) async fn known_already(&self, who: &Identified) -> Result<Option<Decided>, Refusal> {
        let store = self.stand_in().store();
        if self.is_new(who) || !store.knows(who.identity.key) {
            return Ok(None);
        }
        let fingerprint = self.fingerprint();
        let (seq, answers) =
            match store.key_state(who.identity.key, fingerprint.unwrap_or(Digest(0))) {
                KeyState::Unknown => return Ok(None),
                // The app answers for itself, and would notice a second time.
                KeyState::Remembered { seq, .. }
                    if self.app_answers() && self.is_protected(seq).await =>
                {
                    return Ok(None);
                }
                // Too large to keep, or no memory for it now: whether it is the same cannot be said.
                KeyState::Open { same: false, .. } | KeyState::Remembered { same: false, .. }
                    if fingerprint.is_none() =>
                {
                    return Err(Refusal::AcceptedBefore);
                }
                KeyState::Open { same: false, .. } | KeyState::Remembered { same: false, .. } => {
                    return Err(Refusal::KeyReused);
                }
                // Nobody was promised anything yet. If the app speaks for itself, its answer closes the entry; if standin
                // answers again, the append makes a promise of it.
                KeyState::Open { held: Some(HeldReason::Unanswered), .. } => return Ok(None),
                KeyState::Open { seq, .. } => (seq, true),
                KeyState::Remembered { seq, outcome, .. } => {
                    (seq, matches!(outcome, Outcome::Completed | Outcome::AlreadyApplied))
                }
            };
        if !answers {
            return Err(Refusal::DeclinedBefore);
        }
        // An answer that cannot be read is not made up.
        let kept = store.kept_answer(seq).await.map_err(|_| Refusal::AcceptedBefore)?;
        Ok(Some((StandIn::response(kept, None), Answered::KeptAgain)))
    }

    /// The answer that a request of this key was given before, where nothing new may be promised.
    pub(super) async fn promised_before(
        &self,
        who: &Identified,
    ) -> Result<Option<Decided>, Refusal> {
        let store = self.stand_in().store();
        let Some(fingerprint) = self.fingerprint() else { return Ok(None) };
        let seq = match store.key_state(who.identity.key, fingerprint) {
            KeyState::Open { held: Some(HeldReason::Unanswered), .. } => return Ok(None),
            KeyState::Open { seq, same: true, .. } => seq,
            KeyState::Remembered {
                seq,
                same: true,
                outcome: Outcome::Completed | Outcome::AlreadyApplied,
            } => seq,
            _ => return Ok(None),
        };
        let kept = store.kept_answer(seq).await.map_err(|_| Refusal::AcceptedBefore)?;
        Ok(Some((StandIn::response(kept, None), Answered::KeptAgain)))
    }

    /// Asked at all and not known to be down.
    fn app_answers(&self) -> bool {
        self.at_once().is_none()
            && self.route.upstream.is_admitting()
            && self.route.breaker.is_closed()
    }

    /// Whether the app would notice a closed entry that comes a second time. What cannot be read is not sent on.
    async fn is_protected(&self, seq: Seq) -> bool {
        if self.route.config.app_dedupes.is_none() {
            return false;
        }
        let entry = self.stand_in().store().load(seq).await;
        let until = entry.ok().and_then(|entry| self.route.protected_until(entry.received_at));
        until.is_some_and(|until| UnixMillis::now() < until)
    }

    /// Goes behind the stored requests of its sequence; behind a held one it cannot.
    pub(super) fn behind_its_sequence(&self, who: &Identified) -> Result<Option<Cause>, Refusal> {
        let Some(sequence) = who.sequence else { return Ok(None) };
        match self.stand_in().store().sequence_state(sequence) {
            SequenceState::Free => Ok(None),
            SequenceState::HeadHeld if !self.waits_unanswered(who) => Err(Refusal::SequenceHeld),
            SequenceState::HeadHeld | SequenceState::Queued => Ok(Some(Cause::new(
                Reason::SequenceHeld,
                Certainty::NotSent,
                "earlier requests of its sequence are stored",
            ))),
        }
    }

    /// It is in its sequence itself already, from a time when nobody heard the answer.
    fn waits_unanswered(&self, who: &Identified) -> bool {
        let known = self
            .stand_in()
            .store()
            .key_state(who.identity.key, self.fingerprint().unwrap_or(Digest(0)));
        matches!(known, KeyState::Open { same: true, held: Some(HeldReason::Unanswered), .. })
    }

    /// The app knows its key as that of another request, and would take it for that one.
    pub(super) fn has_anothers_key(&self, who: &Identified) -> bool {
        let is_anothers = |fingerprint| {
            let uses = self.stand_in().uses();
            uses.is_anothers(who.identity.key, fingerprint, UnixMillis::now())
        };
        !self.is_new(who) && self.fingerprint().is_some_and(is_anothers)
    }

    /// The app has heard of its key, or may have, and would notice another request under it.
    pub(super) fn note_use(&self, who: &Identified) {
        let now = UnixMillis::now();
        if !self.is_new(who)
            && let Some(until) = self.route.protected_until(now)
            && let Some(fingerprint) = self.fingerprint()
        {
            self.stand_in().uses().note(who.identity.key, fingerprint, now, until);
        }
    }

    /// None if the body is too large to keep, or there was no memory for it.
    fn fingerprint(&self) -> Option<Digest> {
        let body = self.body.as_ref()?.as_ref()?;
        let made = self.fingerprint.get();
        let made = made.unwrap_or_else(|| self.policy.fingerprint(&self.head, &body.bytes));
        self.fingerprint.set(Some(made));
        Some(made)
    }
}
