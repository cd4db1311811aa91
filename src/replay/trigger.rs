//! What starts a run: recovery, an entry that falls due, a person. All start the same kind of run.

use crate::{config::Trigger, mode::Mode};

/// Who started a run that nobody asked for.
pub(super) const BY_ITSELF: &str = "recovery";

/// What is known of an upstream when it is asked whether its replay starts by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    /// It may be sent to now: up, or a canary may find out.
    pub open_to_sends: bool,
    /// A run that covers its automatic routes is under way.
    pub under_way: bool,
    /// An entry of its automatic routes is due.
    pub due: bool,
}

impl Outlook {
    pub(super) fn starts_by_itself(self) -> bool {
        self.open_to_sends && !self.under_way && self.due
    }
}

/// Whether entries of a route are sent without a person asking. `forced` pauses that; so does a person who stopped a
/// run, until the app was down and is back, or somebody starts one.
pub(super) fn plays_by_itself(trigger: Trigger, mode: Mode, stopped: bool) -> bool {
    trigger == Trigger::Auto && mode != Mode::Forced && !stopped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_forced_and_stopped_wait_for_a_person() {
        for (trigger, mode, stopped, plays) in [
            (Trigger::Auto, Mode::Auto, false, true),
            (Trigger::Auto, Mode::PassThrough, false, true),
            (Trigger::Auto, Mode::Forced, false, false),
            (Trigger::Auto, Mode::Auto, true, false),
            (Trigger::Manual, Mode::Auto, false, false),
        ] {
            assert_eq!(plays_by_itself(trigger, mode, stopped), plays, "{trigger:?} {mode:?}");
        }
    }

    #[test]
    fn starts_once_and_only_with_work_and_an_app() {
        let ready = Outlook { open_to_sends: true, under_way: false, due: true };
        assert!(ready.starts_by_itself());
        assert!(!Outlook { open_to_sends: false, ..ready }.starts_by_itself());
        assert!(!Outlook { under_way: true, ..ready }.starts_by_itself());
        assert!(!Outlook { due: false, ..ready }.starts_by_itself());
    }
}
