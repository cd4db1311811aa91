//! An entry: one stored request with all that is known of it, its states and its history.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// Number of an entry in the append log: grows, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub i64);

/// What a person says on the phone: 8 characters of Crockford base32 with a check character, for example `7K3M-Q2XD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt(pub u64);

/// A 128-bit digest: of a key with its scope, of a request, of a sequence, of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

/// What an attempt left behind at the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// No byte can have reached the app.
    NotSent,
    /// It may have been applied.
    SentUnknown,
}

/// Why standin answered in the app's stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    ConnectFailed,
    TimedOut,
    Reset,
    BadStatus,
    BreakerOpen,
    Forced,
    Deferred,
    Standby,
    SequenceHeld,
    /// No egress proxy led to the app. Only where a route asks for it.
    NoWayOut,
}

/// Where an entry stands. `closed` has an [`Outcome`], `held` a [`HeldReason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Stored,
    Leased,
    Sending,
    Held,
    Closed,
}

/// How an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The app applied it: by replay, late answer or live answer.
    Completed,
    /// The app said by an explicit rule that it had it already.
    AlreadyApplied,
    /// The app's final no: a person must follow up.
    Declined,
    /// Given up by a person.
    WrittenOff,
}

/// Why an entry waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldReason {
    /// `max_attempts` were made.
    Attempts,
    /// Past its `expires`: nothing is sent any more.
    Expired,
    /// The app refused the credentials (401, 403, 407) or redirected.
    Credentials,
    /// It may have been applied and nothing protects another send.
    Unclear,
    /// Its client certainly never got the answer.
    Unanswered,
    /// No route of that name any more.
    RouteGone,
    /// Its checksum does not fit: bytes kept, nothing sent.
    Damaged,
    /// A person said so.
    ByPerson,
}

/// The request as received, minus what belongs to one hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRequest {
    pub method: String,
    /// Request target in origin form, byte for byte.
    pub target: String,
    /// Fields in order, names in lower case, values byte for byte. `host` is among them.
    pub headers: Vec<(String, Bytes)>,
    pub body: Bytes,
    pub trailers: Vec<(String, Bytes)>,
    pub client_ip: String,
}

/// The answer the client got. Given again to the same key; never rendered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    pub headers: Vec<(String, Bytes)>,
    pub body: Bytes,
}

/// What makes two requests the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Digest of route, principal and key.
    pub key: Digest,
    /// The key as the app gets it in `Idempotency-Key`.
    pub key_text: String,
    /// Digest of method, target and body.
    pub fingerprint: Digest,
    /// Whose request; may be a hash.
    pub principal: String,
}

/// How much of a route may be open. Counted with the append, released on close.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    pub open: u64,
    pub open_sum: Option<i64>,
    /// Most accepted per customer within the window, closed ones included.
    pub per_customer: Option<(u32, Duration)>,
}

/// Where the entries of a route belong, and how many of them there may be. One for all of them: each entry on its way to
/// the writer holds it.
#[derive(Debug)]
pub struct Home {
    pub route: Arc<str>,
    pub upstream: Arc<str>,
    pub caps: Caps,
}

/// One request to be stored.
#[derive(Clone, Debug)]
pub struct NewEntry {
    pub request_id: String,
    pub received_at: UnixMillis,
    pub route: Arc<str>,
    pub upstream: Arc<str>,
    pub identity: Identity,
    /// Entries of one sequence are replayed in order.
    pub sequence: Option<Digest>,
    pub reason: Reason,
    pub certainty: Certainty,
    /// What the attempt said, for the history: "connection refused".
    pub cause: String,
    /// Not sent again before this (late window).
    pub not_before: UnixMillis,
    pub expires_at: UnixMillis,
    pub request: StoredRequest,
    pub answer: KeptAnswer,
    pub labels: Vec<(String, String)>,
    /// What `sum_of` gave; 0 without it.
    pub amount: i64,
    pub customer: Option<Digest>,
    pub caps: Arc<Caps>,
    /// `Some(Unanswered)` when the client is known to be gone already.
    pub held: Option<HeldReason>,
}

/// One request to be stored, as its parts lie at the caller: nothing of it is copied before it becomes a row.
#[derive(Clone, Copy)]
pub struct Draft<'a> {
    pub request_id: &'a str,
    pub received_at: UnixMillis,
    pub home: &'a Arc<Home>,
    pub key: Digest,
    pub key_text: &'a str,
    pub fingerprint: Digest,
    pub principal: &'a str,
    pub sequence: Option<Digest>,
    pub reason: Reason,
    pub certainty: Certainty,
    pub cause: &'a str,
    pub not_before: UnixMillis,
    pub expires_at: UnixMillis,
    pub method: &'a str,
    pub target: &'a str,
    pub headers: Fields<'a>,
    pub body: &'a [u8],
    pub trailers: Fields<'a>,
    pub client_ip: &'a str,
    pub answer_status: u16,
    pub answer_headers: Fields<'a>,
    pub answer_body: &'a [u8],
    pub labels: &'a [(String, String)],
    pub amount: i64,
    pub customer: Option<Digest>,
    pub held: Option<HeldReason>,
}

/// Header fields, in order.
#[derive(Clone, Copy)]
pub enum Fields<'a> {
    Pairs(&'a [(String, Bytes)]),
    /// All but those of which the second says that they are left out.
    Parsed(&'a HeaderMap, &'a dyn Fn(&HeaderName) -> bool),
}

impl NewEntry {
    pub fn home(&self) -> Arc<Home> {
        let (route, upstream) = (Arc::clone(&self.route), Arc::clone(&self.upstream));
        Arc::new(Home { route, upstream, caps: Caps::clone(&self.caps) })
    }

    pub fn draft<'a>(&'a self, home: &'a Arc<Home>) -> Draft<'a> {
        let Self { identity, request, answer, .. } = self;
        Draft {
            request_id: &self.request_id,
            received_at: self.received_at,
            home,
            key: identity.key,
            key_text: &identity.key_text,
            fingerprint: identity.fingerprint,
            principal: &identity.principal,
            sequence: self.sequence,
            reason: self.reason,
            certainty: self.certainty,
            cause: &self.cause,
            not_before: self.not_before,
            expires_at: self.expires_at,
            method: &request.method,
            target: &request.target,
            headers: Fields::Pairs(&request.headers),
            body: &request.body,
            trailers: Fields::Pairs(&request.trailers),
            client_ip: &request.client_ip,
            answer_status: answer.status,
            answer_headers: Fields::Pairs(&answer.headers),
            answer_body: &answer.body,
            labels: &self.labels,
            amount: self.amount,
            customer: self.customer,
            held: self.held,
        }
    }
}

/// An entry as it is read back.
#[derive(Clone, Debug)]
pub struct Entry {
    pub seq: Seq,
    pub receipt: Receipt,
    pub request_id: String,
    pub received_at: UnixMillis,
    pub route: Arc<str>,
    pub upstream: Arc<str>,
    pub identity: Identity,
    pub sequence: Option<Digest>,
    pub reason: Reason,
    /// The worst over all attempts.
    pub certainty: Certainty,
    pub cause: String,
    pub not_before: UnixMillis,
    pub expires_at: UnixMillis,
    pub request: StoredRequest,
    pub answer: KeptAnswer,
    pub labels: Vec<(String, String)>,
    pub amount: i64,
    pub state: State,
    pub outcome: Option<Outcome>,
    pub held: Option<HeldReason>,
    /// Replays that may have reached the app (`not_sent` ones are not counted).
    pub attempts: u32,
    /// Of a declined entry: when a person followed it up.
    pub followed_up: Option<UnixMillis>,
    /// False: the row's checksum does not fit its bytes; it must not be sent.
    pub intact: bool,
}

/// One line of an entry's history.
#[derive(Clone, Debug)]
pub struct HistoryLine {
    pub at: UnixMillis,
    /// State after the change.
    pub state: State,
    pub outcome: Option<Outcome>,
    pub held: Option<HeldReason>,
    /// `request`, `replay`, `late_answer`, `live_answer`, `start`, or a person's name.
    pub who: String,
    pub why: String,
    /// Number of the attempt this belongs to, 0 for none.
    pub attempt: u32,
    /// What the app answered in this attempt, bounded.
    pub upstream_answer: Option<KeptAnswer>,
}

/// The words of an enum, the same in schema, code, metrics, API and page.
macro_rules! words {
    ($type:ident: $($variant:ident = $word:literal),+ $(,)?) => {
        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words!(Certainty: NotSent = "not_sent", SentUnknown = "sent_unknown");
words!(State: Stored = "stored", Leased = "leased", Sending = "sending", Held = "held", Closed = "closed");
words!(Outcome: Completed = "completed", AlreadyApplied = "already_applied", Declined = "declined", WrittenOff = "written_off");
words!(HeldReason:
    Attempts = "attempts",
    Expired = "expired",
    Credentials = "credentials",
    Unclear = "unclear",
    Unanswered = "unanswered",
    RouteGone = "route_gone",
    Damaged = "damaged",
    ByPerson = "by_person",
);
words!(Reason:
    ConnectFailed = "connect_failed",
    TimedOut = "timed_out",
    Reset = "reset",
    BadStatus = "bad_status",
    BreakerOpen = "breaker_open",
    Forced = "forced",
    Deferred = "deferred",
    Standby = "standby",
    SequenceHeld = "sequence_held",
    NoWayOut = "no_way_out",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_serde_and_lead_back() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
            assert_eq!(State::from_word(state.word()), Some(*state));
        }
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.word());
        }
        for held in HeldReason::ALL {
            assert_eq!(serde_json::to_value(held).unwrap(), held.word());
        }
        for outcome in Outcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.word());
        }
        for certainty in Certainty::ALL {
            assert_eq!(serde_json::to_value(certainty).unwrap(), certainty.word());
        }
    }
}
