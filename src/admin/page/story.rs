//! An entry in sentences, as one would say it on the phone.

use crate::{
    admin::view::{EntryDetail, EntryView, span},
    store::{Certainty, HeldReason, Outcome, Reason, State as EntryState},
    time::UnixMillis,
};

/// Where an entry stands, as one would say it on the phone.
pub(super) fn story(detail: &EntryDetail, now: UnixMillis) -> String {
    let entry = &detail.entry;
    let kept = format!(
        "Accepted {} because {}.",
        entry.received_at.short(now),
        match entry.reason {
            Reason::ConnectFailed => "the app could not be reached",
            Reason::TimedOut => "the app did not answer in time",
            Reason::Reset => "the app broke the connection",
            Reason::BadStatus => "the app answered with an error",
            Reason::BreakerOpen => "the app was known to be down",
            Reason::Forced => "stand-ins were forced",
            Reason::Deferred => "this route is always answered by standin",
            Reason::Standby => "this standin is a standby",
            Reason::NoWayOut => "no egress proxy led to the app",
            Reason::SequenceHeld => "earlier requests of its sequence were waiting",
        }
    );
    let applied = match entry.certainty {
        Certainty::NotSent => "The app has certainly not applied it.",
        Certainty::SentUnknown => "The app may have applied it already.",
    };
    let stands = match (entry.state, entry.outcome, entry.held) {
        (EntryState::Stored, ..) if detail.not_before.0 > now => {
            let wait = span(detail.not_before.0.since(now));
            format!("It waits: not sent again within the next {wait}. {applied}")
        }
        (EntryState::Stored, ..) => format!("It waits for its replay. {applied}"),
        (EntryState::Leased, ..) => "It is about to be sent.".to_owned(),
        (EntryState::Sending, ..) => "It is being sent now.".to_owned(),
        (EntryState::Held, _, Some(held)) => {
            format!("It waits for a person: {} {applied}", held_means(held))
        }
        (EntryState::Held, _, None) => format!("It waits for a person. {applied}"),
        (EntryState::Closed, Some(Outcome::Completed), _) => "The app has applied it.".to_owned(),
        (EntryState::Closed, Some(Outcome::AlreadyApplied), _) => {
            "The app said that it had it already.".to_owned()
        }
        (EntryState::Closed, Some(Outcome::Declined), _) if entry.followed_up.is_some() => {
            "The app refused it for good, and a person has followed it up.".to_owned()
        }
        (EntryState::Closed, Some(Outcome::Declined), _) => {
            "The app refused it for good: its customer was promised something that will not happen."
                .to_owned()
        }
        (EntryState::Closed, Some(Outcome::WrittenOff), _) => {
            "A person gave it up: it is never sent.".to_owned()
        }
        (EntryState::Closed, None, _) => "It is closed.".to_owned(),
    };
    format!("{kept} {stands}")
}

fn held_means(held: HeldReason) -> &'static str {
    match held {
        HeldReason::Attempts => "all attempts were used up.",
        HeldReason::Expired => "it is past its time, and nothing is sent past its time.",
        HeldReason::Credentials => "the app refused its credentials, or redirected.",
        HeldReason::Unclear => "nothing protects the app against a second one.",
        HeldReason::Unanswered => "its client certainly never got the answer.",
        HeldReason::RouteGone => "its route is not configured any more.",
        HeldReason::Damaged => "its bytes do not fit its checksum; it can only be written off.",
        HeldReason::ByPerson => "a person held it.",
    }
}

/// What sending it may do.
pub(super) fn risk(entry: &EntryView) -> String {
    match entry.certainty {
        Certainty::NotSent => "The app has certainly not applied it yet.".into(),
        Certainty::SentUnknown => {
            "The app may have applied it already: look there first, or make sure that it refuses duplicates."
                .into()
        }
    }
}
