//! What is known of a request before anybody is asked: its key under way, open or remembered; its sequence waiting.

use std::time::Duration;

use super::{Case, Decided};
use crate::{
    failover::Refusal,
    stand_in::{Cause, Identified, StandIn, dedupe::Place},
    store::{Certainty, Digest, HeldReason, KeyState, Outcome, Reason, SequenceState},
    telemetry::Answered,
};

/// How long a request waits for another of the same key.
const KEY_WAIT: Duration = Duration::from_secs(10);

impl Case {
    /// One of a key at a time: the second waits for the first, and learns from it.
    pub(super) async fn take_turn(&self, who: &Identified) -> Result<Option<Place>, Refusal> {
        if !who.by_client {
            return Ok(None); // an id of our own: nobody else has it
        }
        let place = self.stand_in().under_way().enter(who.identity.key, KEY_WAIT).await;
        place.map(Some).ok_or(Refusal::StillUnderWay)
    }

    /// An answer for a request that was accepted before.
    pub(super) async fn known_already(&self, who: &Identified) -> Result<Option<Decided>, Refusal> {
        let store = self.stand_in().store();
        let (seq, answers) = match store.key_state(who.identity.key, self.fingerprint()) {
            KeyState::Unknown => return Ok(None),
            KeyState::Open { same: false, .. } => return Err(Refusal::KeyReused),
            // Nobody was promised anything yet. If the app speaks for itself, its answer closes the entry; if standin
            // answers again, the append makes a promise of it.
            KeyState::Open { held: Some(HeldReason::Unanswered), .. } => return Ok(None),
            KeyState::Open { seq, .. } => (seq, true),
            KeyState::Remembered { .. } if self.app_answers() => return Ok(None),
            KeyState::Remembered { same: false, .. } => return Err(Refusal::KeyReused),
            KeyState::Remembered { seq, outcome, .. } => {
                (seq, matches!(outcome, Outcome::Completed | Outcome::AlreadyApplied))
            }
        };
        if !answers {
            return Err(Refusal::DeclinedBefore);
        }
        // An answer that cannot be read is not made up.
        let (answer, receipt) = store.kept_answer(seq).await.map_err(|_| Refusal::NobodyToAsk)?;
        Ok(Some((StandIn::response(answer, receipt, None), Answered::KeptAgain)))
    }

    /// Asked at all and not known to be down.
    fn app_answers(&self) -> bool {
        self.at_once().is_none() && self.route.upstream.is_admitting()
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
        let known = self.stand_in().store().key_state(who.identity.key, self.fingerprint());
        matches!(known, KeyState::Open { same: true, held: Some(HeldReason::Unanswered), .. })
    }

    /// Of a request too large to keep it is nobody's: such a one is never the same as a stored one.
    fn fingerprint(&self) -> Digest {
        let body = self.body.as_ref().and_then(Option::as_ref);
        body.map_or(Digest(0), |body| self.policy.fingerprint(&self.head, &body.bytes))
    }
}
