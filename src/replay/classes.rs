//! What an answer of the app means for the entry: done, again, held, or the app's final no.
//!
//! The route's rules come first, in this order: `success`, `already_applied`, `not_applied`, `retry`, `declined`; the first
//! that holds decides. What no rule covers gets the class of its status:
//!
//! | status | class |
//! |---|---|
//! | 2xx | success; but where the route has a `success` rule that did not hold, again (a maintenance page) |
//! | 408, 409, 425, 429, 5xx | again |
//! | 401, 403, 407, 3xx | held(credentials) |
//! | other 4xx | declined |
//! | anything else | held(unclear) |
//!
//! A rule that faults never means success. If the status alone says "not now" (408, 425, 429, 5xx: often the page of
//! something in front of the app, to which no rule fits) the entry is tried again; else it is held(unclear).

use std::borrow::Cow;

use http::StatusCode;

use crate::{
    config::{OutcomeRule, ReplayConfig},
    expr::{Expr, ExprFault},
    store::Certainty,
};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Success,
    AlreadyApplied,
    Declined,
    /// Not now. With what this attempt may have left behind at the app.
    Again(Certainty),
    /// The app refused the credentials, or sends us elsewhere.
    Credentials,
    Unclear,
}

/// A class and why it was chosen, for the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub class: Class,
    pub why: Cow<'static, str>,
}

/// The class of an answer. `ask` evaluates a rule over it.
pub(super) fn classify(
    rules: &ReplayConfig,
    status: StatusCode,
    ask: impl Fn(&Expr) -> Result<bool, ExprFault>,
) -> Judged {
    let by_rule = [
        ("success", &rules.success, Class::Success),
        ("already_applied", &rules.already_applied, Class::AlreadyApplied),
        ("not_applied", &rules.not_applied, Class::Again(Certainty::NotSent)),
        ("retry", &rules.retry, Class::Again(left_behind(status))),
        ("declined", &rules.declined, Class::Declined),
    ];
    for (name, rule, class) in by_rule {
        let holds = match rule {
            None => continue,
            Some(OutcomeRule::Statuses(statuses)) => Ok(statuses.contains(&status.as_u16())),
            Some(OutcomeRule::Rule(expr)) => ask(expr),
        };
        match holds {
            Ok(false) => {}
            Ok(true) => {
                let why = format!("{status}, by the rule `{name}`").into();
                return Judged { class, why };
            }
            Err(fault) => {
                let class = if not_now(status) { by_status(status) } else { Class::Unclear };
                let why = format!("{status}, and the rule `{name}` failed: {fault}");
                return Judged { class, why: why.into() };
            }
        }
    }
    if status.is_success() && rules.success.is_some() {
        let why = format!("{status}, but not what the rule `success` asks for");
        return Judged { class: Class::Again(Certainty::SentUnknown), why: why.into() };
    }
    Judged { class: by_status(status), why: in_words(status) }
}

/// Each live answer on a stand-in route is judged, and nearly all of them are one of these.
fn in_words(status: StatusCode) -> Cow<'static, str> {
    match status {
        StatusCode::OK => "200 OK".into(),
        StatusCode::CREATED => "201 Created".into(),
        StatusCode::ACCEPTED => "202 Accepted".into(),
        StatusCode::NO_CONTENT => "204 No Content".into(),
        other => other.to_string().into(),
    }
}

fn by_status(status: StatusCode) -> Class {
    match status.as_u16() {
        200..=299 => Class::Success,
        409 => Class::Again(left_behind(status)),
        _ if not_now(status) => Class::Again(left_behind(status)),
        401 | 403 | 407 | 300..=399 => Class::Credentials,
        400..=499 => Class::Declined,
        _ => Class::Unclear,
    }
}

/// The status alone says that another time may be better.
fn not_now(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// A 4xx says that this attempt was not applied; anything else may have been (500, 502, 503 and 504 above all).
pub(super) fn left_behind(status: StatusCode) -> Certainty {
    if status.is_client_error() { Certainty::NotSent } else { Certainty::SentUnknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class_of(rules: &ReplayConfig, status: u16) -> Class {
        let fault = |_: &Expr| Err(ExprFault("no such key: ok".into()));
        classify(rules, StatusCode::from_u16(status).unwrap(), fault).class
    }

    fn statuses(statuses: &[u16]) -> Option<OutcomeRule> {
        Some(OutcomeRule::Statuses(statuses.to_vec()))
    }

    fn cel() -> Option<OutcomeRule> {
        Some(OutcomeRule::Rule(Expr::compile("response.body.ok == true").unwrap()))
    }

    const REFUSED: Class = Class::Again(Certainty::NotSent);
    const UNKNOWN: Class = Class::Again(Certainty::SentUnknown);

    #[test]
    fn a_status_in_words_is_what_it_says_of_itself() {
        for status in 100..600 {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(in_words(status), status.to_string());
        }
    }

    #[test]
    fn by_status_alone() {
        for (status, class) in [
            (200, Class::Success),
            (201, Class::Success),
            (204, Class::Success),
            (301, Class::Credentials),
            (304, Class::Credentials),
            (400, Class::Declined),
            (401, Class::Credentials),
            (402, Class::Declined),
            (403, Class::Credentials),
            (404, Class::Declined),
            (407, Class::Credentials),
            (408, REFUSED),
            (409, REFUSED),
            (410, Class::Declined),
            (422, Class::Declined),
            (425, REFUSED),
            (429, REFUSED),
            (500, UNKNOWN),
            (501, UNKNOWN),
            (502, UNKNOWN),
            (503, UNKNOWN),
            (504, UNKNOWN),
            (599, UNKNOWN),
            (100, Class::Unclear),
            (101, Class::Unclear),
            (600, Class::Unclear),
            (999, Class::Unclear),
        ] {
            assert_eq!(class_of(&ReplayConfig::default(), status), class, "{status}");
        }
    }

    #[test]
    fn rules_come_first_in_their_order() {
        let rules = ReplayConfig {
            success: statuses(&[200, 409]),
            already_applied: statuses(&[409, 422]),
            retry: statuses(&[422, 404, 202]),
            declined: statuses(&[404, 500, 410]),
            ..ReplayConfig::default()
        };
        for (status, class) in [
            (409, Class::Success),
            (422, Class::AlreadyApplied),
            (404, REFUSED),
            (202, UNKNOWN),
            (500, Class::Declined),
            (410, Class::Declined),
            (503, UNKNOWN),
            (418, Class::Declined),
        ] {
            assert_eq!(class_of(&rules, status), class, "{status}");
        }
    }

    #[test]
    fn a_503_is_safe_only_where_the_route_says_so() {
        let rules = ReplayConfig { not_applied: statuses(&[503]), ..ReplayConfig::default() };
        assert_eq!(class_of(&rules, 503), REFUSED);
        assert_eq!(class_of(&rules, 502), UNKNOWN);
        let rules = ReplayConfig { not_applied: cel(), ..ReplayConfig::default() };
        let answers = |ok| classify(&rules, StatusCode::SERVICE_UNAVAILABLE, |_| Ok(ok)).class;
        assert_eq!((answers(true), answers(false)), (REFUSED, UNKNOWN));
        assert_eq!(class_of(&rules, 503), UNKNOWN, "a fault is no promise");
    }

    #[test]
    fn a_2xx_that_the_success_rule_denies_is_no_success() {
        let rules = ReplayConfig { success: statuses(&[201]), ..ReplayConfig::default() };
        assert_eq!(class_of(&rules, 201), Class::Success);
        assert_eq!(class_of(&rules, 200), UNKNOWN);

        let rules = ReplayConfig { success: cel(), ..ReplayConfig::default() };
        let answers = |ok| classify(&rules, StatusCode::OK, |_| Ok(ok)).class;
        assert_eq!((answers(true), answers(false)), (Class::Success, UNKNOWN));
    }

    #[test]
    fn a_fault_is_never_success_and_never_a_no() {
        let one = |rules: ReplayConfig| {
            for (status, class) in [
                (200, Class::Unclear),
                (201, Class::Unclear),
                (302, Class::Unclear),
                (401, Class::Unclear),
                (409, Class::Unclear),
                (422, Class::Unclear),
                (429, REFUSED),
                (500, UNKNOWN),
                (503, UNKNOWN),
            ] {
                assert_eq!(class_of(&rules, status), class, "{status}");
            }
        };
        one(ReplayConfig { success: cel(), ..ReplayConfig::default() });
        one(ReplayConfig { already_applied: cel(), ..ReplayConfig::default() });
        one(ReplayConfig { not_applied: cel(), ..ReplayConfig::default() });
        one(ReplayConfig { retry: cel(), ..ReplayConfig::default() });
        one(ReplayConfig { declined: cel(), ..ReplayConfig::default() });
    }

    #[test]
    fn the_history_says_which_rule() {
        let rules = ReplayConfig { already_applied: statuses(&[409]), ..ReplayConfig::default() };
        let judged = classify(&rules, StatusCode::CONFLICT, |_| Ok(false));
        assert_eq!(judged.why, "409 Conflict, by the rule `already_applied`");
    }
}
