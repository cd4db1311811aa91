//! One route as people read it: a line for each question an operator asks of it.

use std::fmt::{Formatter, Result};

use super::{
    AtWorst, Kept, RouteReport, StandInReport, Trigger, Unanswered, rounded, words::line,
    write_size,
};

pub(super) fn write(f: &mut Formatter<'_>, route: &RouteReport) -> Result {
    let RouteReport { name, matches, upstream, timeout, .. } = route;
    writeln!(f, "[route.{name}] {matches} → {upstream}, {timeout} to answer")?;
    let Some(stand_in) = &route.stand_in else {
        return line(f, "app down", "passed through: an honest error, nothing is stored");
    };
    let on: Vec<_> = stand_in.on.iter().map(|cause| cause_in_words(cause)).collect();
    line(f, "app down", &format!("stands in on: {}", on.join("; ")))?;
    for not in &stand_in.not_on {
        line(
            f,
            "",
            &format!(
                "not on {}: {}",
                not.causes.iter().map(|cause| cause_in_words(cause)).collect::<Vec<_>>().join(", "),
                not.why
            ),
        )?;
    }
    line(f, "low risk", &one_line(&stand_in.accept_if))?;
    write_worst(f, &stand_in.at_worst)?;
    write_answer(f, stand_in)?;
    match &stand_in.protected_by {
        Some(by) => line(
            f,
            "protected",
            &format!(
                "by `{}`: the app refuses duplicates for {}; nothing is sent after {}",
                by.header, by.remembers, stand_in.expires
            ),
        )?,
        None => line(
            f,
            "protected",
            &format!(
                "by nothing: what may have reached the app is held for a person; nothing is sent after {}",
                stand_in.expires
            ),
        )?,
    }
    line(
        f,
        "same",
        &format!(
            "key: {}; principal: {}",
            stand_in.key.iter().map(|key| one_line(key)).collect::<Vec<_>>().join(", else "),
            one_line(&stand_in.principal)
        ),
    )?;
    match &stand_in.sequence_by {
        Some(by) => line(f, "in order", &format!("by {}", one_line(by)))?,
        None => line(f, "in order", "no: replayed side by side")?,
    }
    write_replay(f, stand_in)?;
    write_kept(f, &stand_in.kept)
}

fn write_worst(f: &mut Formatter<'_>, worst: &AtWorst) -> Result {
    line(
        f,
        "at worst",
        &format!(
            "{} open entries with bodies of up to {}: at most {} on disk",
            grouped(i128::from(worst.open)),
            write_size(worst.max_body),
            rounded(worst.bytes)
        ),
    )?;
    if let (Some(sum), Some(of)) = (worst.sum, &worst.sum_of) {
        line(f, "", &format!("a sum of {} over `{}`", grouped(sum.into()), one_line(of)))?;
    }
    match &worst.per_customer {
        Some(customer) => line(
            f,
            "",
            &format!(
                "{} per customer within {}, by {}",
                customer.count,
                customer.within,
                one_line(&customer.by)
            ),
        ),
        None => line(f, "", "one customer may use all of it"),
    }
}

fn write_answer(f: &mut Formatter<'_>, stand_in: &StandInReport) -> Result {
    let answer = &stand_in.answer;
    let headers = match answer.headers.as_slice() {
        [] => String::new(),
        names => format!(", with {}", names.join(", ")),
    };
    line(f, "answer", &format!("{} {}{headers}", answer.status, answer.body))?;
    line(
        f,
        "",
        match stand_in.unanswered {
            Unanswered::Hold => "certainly not received by its client: held for a person",
            Unanswered::Replay => "certainly not received by its client: replayed all the same",
        },
    )
}

fn write_replay(f: &mut Formatter<'_>, stand_in: &StandInReport) -> Result {
    let replay = &stand_in.replay;
    let start = match replay.trigger {
        Trigger::Auto => "by itself when the app is back",
        Trigger::Manual => "only when a person says so",
    };
    line(
        f,
        "replay",
        &format!(
            "{start}, at most {} at once, {} attempts, {} to {} apart",
            replay.at_once, replay.max_attempts, replay.min_backoff, replay.max_backoff
        ),
    )?;
    if !replay.set_headers.is_empty() {
        line(f, "", &format!("with {} replaced", replay.set_headers.join(", ")))?;
    }
    Ok(())
}

fn write_kept(f: &mut Formatter<'_>, kept: &Kept) -> Result {
    line(
        f,
        "kept",
        "method, target, headers, body and the answer, in a file only its owner can read (0600)",
    )?;
    match kept.credentials.as_slice() {
        [] => line(f, "", "no known credentials")?,
        names => line(f, "", &format!("credentials too, if sent: {}", names.join(", ")))?,
    }
    if !kept.labels.is_empty() {
        line(f, "", &format!("labels to search by: {}", kept.labels.join(", ")))?;
    }
    let dropped = match kept.dropped.as_slice() {
        [] => "only fields about one connection; card data is never accepted".to_owned(),
        names => format!(
            "{}, and fields about one connection; card data is never accepted",
            names.join(", ")
        ),
    };
    line(f, "dropped", &dropped)
}

fn cause_in_words(cause: &str) -> &str {
    match cause {
        "connect" => "connect (no connection)",
        "breaker" => "breaker (known to be down)",
        "timeout" => "timeout (no answer in time)",
        "reset" => "reset (connection broken)",
        "5xx" => "5xx (500, 502, 503, 504)",
        "always" => "always (deferred)",
        "standby" => "every request (a standby never asks the app first)",
        other => other,
    }
}

/// A rule may be written over several lines, and hold what a terminal would obey.
fn one_line(source: &str) -> String {
    let line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    crate::config::printable(&line)
}

/// `1,000,000`
fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
    }
}
