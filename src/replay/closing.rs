//! The same classes for answers that replay did not ask for: late ones, and live ones to a key that is open.

use std::{borrow::Cow, cell::Cell};

use http::StatusCode;

use super::{
    classes::{Class, Judged, classify, left_behind},
    delivery::judge,
};
use crate::{
    config::ReplayConfig,
    expr::{Expr, ExprFault},
    router::Route,
    store::{Certainty, Entry, Outcome},
    time::UnixMillis,
    upstream::WholeAnswer,
};

/// What an answer that came after its deadline means for its entry; none: nothing changes.
pub(crate) fn late_outcome(
    entry: &Entry,
    route: &Route,
    answer: &WholeAnswer,
) -> Option<(Outcome, String)> {
    let (outcome, why) = closing(judge(entry, route, answer, UnixMillis::now()))?;
    Some((outcome, why.into_owned()))
}

/// What the answer to a live request says of what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Live {
    Closes(Outcome, Cow<'static, str>),
    /// This try was not applied; nothing is said of others.
    NotApplied,
    /// It may have been applied.
    Doubtful,
    /// As good an answer as any, but a rule would have to look at what only passes through.
    Unseen,
}

/// The same for an answer whose body only passes through. `ask` evaluates a rule; none: it would have to look there.
pub(crate) fn live_outcome(
    rules: &ReplayConfig,
    status: StatusCode,
    ask: impl Fn(&Expr) -> Option<Result<bool, ExprFault>>,
) -> Live {
    let unseen = Cell::new(false);
    let judged = classify(rules, status, |rule| {
        ask(rule).unwrap_or_else(|| {
            unseen.set(true);
            Err(ExprFault("the body of a live answer is not looked at".to_owned()))
        })
    });
    let left_behind = match judged.class {
        Class::Again(certainty) => certainty,
        Class::Unclear if unseen.get() && status.is_success() => return Live::Unseen,
        Class::Credentials | Class::Unclear => left_behind(status),
        Class::Success | Class::AlreadyApplied | Class::Declined => Certainty::SentUnknown,
    };
    match (closing(judged), left_behind) {
        (Some((outcome, why)), _) => Live::Closes(outcome, why),
        (None, Certainty::NotSent) => Live::NotApplied,
        (None, Certainty::SentUnknown) => Live::Doubtful,
    }
}

fn closing(judged: Judged) -> Option<(Outcome, Cow<'static, str>)> {
    let outcome = match judged.class {
        Class::Success => Outcome::Completed,
        Class::AlreadyApplied => Outcome::AlreadyApplied,
        Class::Declined => Outcome::Declined,
        Class::Again(_) | Class::Credentials | Class::Unclear => return None,
    };
    Some((outcome, judged.why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(rules: &str, status: u16, answer: Option<bool>) -> Live {
        let rules = toml::from_str(rules).unwrap();
        live_outcome(&rules, StatusCode::from_u16(status).unwrap(), |_| answer.map(Ok))
    }

    fn outcome(rules: &str, status: u16, answer: Option<bool>) -> Option<Outcome> {
        match live(rules, status, answer) {
            Live::Closes(outcome, _) => Some(outcome),
            _ => None,
        }
    }

    #[test]
    fn what_an_answer_says_without_rules() {
        for status in [200, 201, 204] {
            assert_eq!(outcome("", status, None), Some(Outcome::Completed), "{status}");
        }
        for status in [400, 404, 422] {
            assert_eq!(outcome("", status, None), Some(Outcome::Declined), "{status}");
        }
        for status in [401, 403, 408, 409, 425, 429] {
            assert_eq!(live("", status, None), Live::NotApplied, "{status}");
        }
        for status in [301, 303, 500, 502, 503, 504] {
            assert_eq!(live("", status, None), Live::Doubtful, "{status}");
        }
    }

    #[test]
    fn rules_that_can_be_asked_decide() {
        let rule = "success = 'response.status == 201'";
        assert_eq!(outcome(rule, 201, Some(true)), Some(Outcome::Completed));
        assert_eq!(live(rule, 202, Some(false)), Live::Doubtful);
        assert_eq!(outcome("already_applied = [409]", 409, None), Some(Outcome::AlreadyApplied));
        assert_eq!(live("retry = [404]", 404, None), Live::NotApplied);
        assert_eq!(live("not_applied = [503]", 503, None), Live::NotApplied);
        let shed = "not_applied = 'response.status == 503'";
        assert_eq!(live(shed, 503, Some(true)), Live::NotApplied);
        assert_eq!(live(shed, 503, Some(false)), Live::Doubtful);
    }

    #[test]
    fn rules_that_cannot_be_asked_say_nothing_of_a_success() {
        for rule in ["success", "already_applied", "not_applied", "retry", "declined"] {
            let rule = format!("{rule} = 'response.body.ok == true'");
            assert_eq!(live(&rule, 201, None), Live::Unseen, "{rule}");
            assert_eq!(live(&rule, 422, None), Live::NotApplied, "{rule}");
            assert_eq!(live(&rule, 303, None), Live::Doubtful, "{rule}");
            assert_eq!(live(&rule, 503, None), Live::Doubtful, "{rule}");
        }
    }
}
