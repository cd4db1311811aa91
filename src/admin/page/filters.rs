//! How templates write numbers, times and words.

#![expect(unreachable_pub, reason = "the filter macro writes methods that are pub")]

use std::fmt::Display;

use askama::{Result, Values, filter_fn};

use crate::{
    admin::view::{self, At, Severity},
    time::UnixMillis,
};

/// `12 345`.
#[filter_fn]
pub(super) fn grouped<N: Display>(n: N, _: &dyn Values) -> Result<String> {
    Ok(view::grouped(n))
}

/// `12.3 MiB`.
#[filter_fn]
pub(super) fn bytes(n: &u64, _: &dyn Values) -> Result<String> {
    Ok(view::bytes(*n))
}

/// `12 min ago`, `in 3 h`.
#[filter_fn]
pub(super) fn ago(at: &At, _: &dyn Values, now: &UnixMillis) -> Result<String> {
    Ok(if at.0 > *now {
        format!("in {}", view::span(at.0.since(*now)))
    } else {
        format!("{} ago", view::span(now.since(at.0)))
    })
}

/// `sent unknown` for `sent_unknown`.
#[filter_fn]
pub(super) fn words<W: serde::Serialize>(word: W, _: &dyn Values) -> Result<String> {
    Ok(view::word(&word).replace('_', " "))
}

/// What a person calls a severity.
#[filter_fn]
pub(super) fn call_it(severity: &Severity, _: &dyn Values) -> Result<&'static str> {
    Ok(match severity {
        Severity::Good => "Good",
        Severity::Note => "Note",
        Severity::Warn => "Attention",
        Severity::Alarm => "Alarm",
    })
}

/// The class of a severity.
#[filter_fn]
pub(super) fn class(severity: &Severity, _: &dyn Values) -> Result<&'static str> {
    Ok(match severity {
        Severity::Good => "good",
        Severity::Note => "note",
        Severity::Warn => "warn",
        Severity::Alarm => "alarm",
    })
}
