//! The one table of what may follow what.

use super::State;

/// What happens to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A replayer claims it.
    Lease,
    /// The claim goes back unsent.
    GiveBack,
    /// The claimed entry is about to be sent.
    Send,
    /// The claimed entry is held unsent.
    HoldLeased,
    /// The result of a send.
    FinishClosed,
    FinishAgain,
    FinishHeld,
    /// The first exchange answered after all.
    LateAnswer,
    /// The app answered the same key live.
    LiveAnswer,
    /// The client certainly never got its answer.
    Unanswered,
    /// Another attempt of the same key may have reached the app.
    Worsened,
    /// A person's acts.
    Hold,
    Release,
    WriteOff,
    /// standin starts: claims are void, sends are unknown.
    Start,
}

/// The state after `event`, if it may happen in `state`.
///
/// A claim (`leased`) is only a promise among replayers: nothing was sent. So whatever may happen to a stored entry may
/// happen to a claimed one; the claim is void then. During `sending` only its own result counts.
pub(super) fn after(state: State, event: Event) -> Option<State> {
    use Event as E;
    use State as S;
    let next = match (state, event) {
        (S::Stored, E::Lease) => S::Leased,
        (S::Leased, E::GiveBack) => S::Stored,
        (S::Leased, E::Send) => S::Sending,
        (S::Leased, E::HoldLeased) => S::Held,
        (S::Sending, E::FinishClosed) => S::Closed,
        (S::Sending, E::FinishAgain) => S::Stored,
        (S::Sending, E::FinishHeld) => S::Held,
        (S::Stored | S::Leased, E::LateAnswer) => S::Closed,
        (S::Stored | S::Leased | S::Held, E::LiveAnswer) => S::Closed,
        (S::Stored | S::Leased, E::Unanswered) => S::Held,
        (S::Stored | S::Leased, E::Worsened) => S::Stored,
        (S::Sending, E::Worsened) => S::Sending,
        (S::Held, E::Worsened) => S::Held,
        (S::Stored | S::Leased, E::Hold) => S::Held,
        (S::Held, E::Release) => S::Stored,
        (S::Stored | S::Leased | S::Held, E::WriteOff) => S::Closed,
        (S::Stored | S::Leased | S::Sending, E::Start) => S::Stored,
        (S::Held, E::Start) => S::Held,
        _ => return None,
    };
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 15] = [
        Event::Lease,
        Event::GiveBack,
        Event::Send,
        Event::HoldLeased,
        Event::FinishClosed,
        Event::FinishAgain,
        Event::FinishHeld,
        Event::LateAnswer,
        Event::LiveAnswer,
        Event::Unanswered,
        Event::Worsened,
        Event::Hold,
        Event::Release,
        Event::WriteOff,
        Event::Start,
    ];

    /// The whole table, row by state, column by event in the order above.
    #[test]
    fn is_this_table() {
        let table: Vec<String> = State::ALL
            .iter()
            .map(|&state| {
                EVENTS
                    .iter()
                    .map(|&event| match after(state, event) {
                        None => '.',
                        Some(State::Stored) => 's',
                        Some(State::Leased) => 'l',
                        Some(State::Sending) => 'S',
                        Some(State::Held) => 'h',
                        Some(State::Closed) => 'c',
                    })
                    .collect()
            })
            .collect();
        assert_eq!(
            table,
            [
                "l......c".to_owned() + "chsh.cs", // stored
                ".sSh...c".to_owned() + "chsh.cs", // leased
                "....csh.".to_owned() + "..S...s", // sending
                "........".to_owned() + "c.h.sch", // held
                "........".to_owned() + ".......", // closed
            ]
        );
    }

    #[test]
    fn nothing_leaves_closed_and_only_a_claim_is_sent() {
        for event in EVENTS {
            assert_eq!(after(State::Closed, event), None);
        }
        for &state in State::ALL {
            assert_eq!(after(state, Event::Send).is_some(), state == State::Leased);
        }
    }
}
