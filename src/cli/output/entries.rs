//! Entries, as a list and one with all that is known of it.

use super::{cells, numbers, plain, table};
use crate::admin::{
    text,
    view::{self, AnswerView, BodyView, EntryDetail, EntryList, EntryView, Field, HistoryView},
};

pub(in crate::cli) fn entries(list: &EntryList) -> String {
    if list.entries.is_empty() {
        return "No entries.".into();
    }
    let mut table = table(&[
        "receipt", "received", "state", "route", "reason", "request", "labels", "amount",
        "attempts",
    ]);
    numbers(&mut table, &[7, 8]);
    for entry in &list.entries {
        table.add_row(cells([
            entry.receipt.clone(),
            entry.received_at.to_string(),
            entry.state_words(),
            entry.route.clone(),
            view::word(&entry.reason),
            request(entry),
            fields(&entry.labels, " "),
            if entry.amount == 0 { String::new() } else { entry.amount.to_string() },
            entry.attempts.to_string(),
        ]));
    }
    match list.next {
        Some(next) => format!("{}\n\nThere are older ones: --before {next}", table.trim_fmt()),
        None => table.trim_fmt(),
    }
}

pub(in crate::cli) fn entry(detail: &EntryDetail) -> String {
    let entry = &detail.entry;
    let mut facts = plain();
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.add_row(cells([name.to_owned(), value]));
        }
    };
    fact("receipt", entry.receipt.clone());
    fact("state", entry.state_words());
    fact("request", request(entry));
    fact("route", format!("{} to {}", entry.route, detail.upstream));
    fact("labels", fields(&entry.labels, "\n"));
    fact("amount", if entry.amount == 0 { String::new() } else { entry.amount.to_string() });
    fact("received", format!("{}, from {}", entry.received_at, detail.request.client_ip));
    fact("reason", format!("{} {}", view::word(&entry.reason), detail.cause));
    fact(
        "certainty",
        format!("{}, {} counted attempts", view::word(&entry.certainty), entry.attempts),
    );
    fact("not before", detail.not_before.to_string());
    fact("expires", entry.expires_at.to_string());
    fact("request id", entry.request_id.clone());
    fact("key", detail.key.clone());
    fact("principal", detail.principal.clone());
    fact("number", entry.seq.to_string());
    fact("intact", if detail.intact { String::new() } else { "no: never sent".into() });
    let mut out = format!("{}\n\nHISTORY\n{}\n", facts.trim_fmt(), history(&detail.history));
    out += &format!("\nREQUEST\n{}\n", fields(&detail.request.headers, "\n"));
    out += &body(&detail.request.body);
    out +=
        &format!("\nANSWER ITS CLIENT GOT: {}\n{}", detail.answer.status, answer(&detail.answer));
    out
}

fn history(lines: &[HistoryView]) -> String {
    let mut table = plain();
    for line in lines {
        let attempt = line.attempt.map(|n| format!("attempt {n}")).unwrap_or_default();
        let answered =
            line.upstream_answer.as_ref().map(|answer| format!(" (the app: {})", answer.status));
        table.add_row(cells([
            line.at.to_string(),
            line.state_words(),
            attempt,
            line.who.clone(),
            format!("{}{}", line.why, answered.unwrap_or_default()),
        ]));
    }
    table.trim_fmt()
}

fn answer(answer: &AnswerView) -> String {
    format!("{}\n{}", fields(&answer.headers, "\n"), body(&answer.body))
}

fn body(body: &BodyView) -> String {
    let lines: Vec<String> = body.text.lines().map(text::line).collect();
    let more = if body.truncated { "\n(only the beginning)" } else { "" };
    format!("\n{}{more}\n", lines.join("\n"))
}

fn request(entry: &EntryView) -> String {
    format!("{} {}", entry.method, entry.target)
}

fn fields(fields: &[Field], between: &str) -> String {
    let lines: Vec<String> = fields
        .iter()
        .map(|field| format!("{}: {}", text::line(&field.name), text::line(&field.value)))
        .collect();
    lines.join(between)
}
