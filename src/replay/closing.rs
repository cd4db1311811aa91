//! The same classes for answers that replay did not ask for: late ones, and live ones to a key that is open.

use http::StatusCode;

use super::{
    classes::{Class, Judged, classify},
    delivery::judge,
};
use crate::{
    config::ReplayConfig,
    expr::ExprFault,
    router::Route,
    store::{Entry, Outcome},
    time::UnixMillis,
    upstream::WholeAnswer,
};

/// What an answer that came after its deadline means for its entry; none: nothing changes.
pub(crate) fn late_outcome(
    entry: &Entry,
    route: &Route,
    answer: &WholeAnswer,
) -> Option<(Outcome, String)> {
    closing(judge(entry, route, answer, UnixMillis::now()))
}

/// The same for an answer whose body only passes through: rules that would have to look into it do not hold.
pub(crate) fn live_outcome(rules: &ReplayConfig, status: StatusCode) -> Option<(Outcome, String)> {
    let unseen = || ExprFault("the body of a live answer is not looked at".to_owned());
    closing(classify(rules, status, |_| Err(unseen())))
}

fn closing(judged: Judged) -> Option<(Outcome, String)> {
    let outcome = match judged.class {
        Class::Success => Outcome::Completed,
        Class::AlreadyApplied => Outcome::AlreadyApplied,
        Class::Declined => Outcome::Declined,
        Class::Again(_) | Class::Credentials | Class::Unclear => return None,
    };
    Some((outcome, judged.why))
}
