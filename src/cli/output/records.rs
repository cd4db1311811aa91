//! Failed exchanges, as a list and one with what was said in it.

use super::{cells, numbers, plain, table};
use crate::admin::{
    text,
    view::{RecordDetail, RecordList, RecordedMessage},
};

pub(in crate::cli) fn records(list: &RecordList) -> String {
    if list.records.is_empty() {
        return "No failed exchanges.".into();
    }
    let mut table = table(&["number", "at", "route", "request", "what failed", "ms"]);
    numbers(&mut table, &[0, 5]);
    for record in &list.records {
        table.add_row(cells([
            record.id.to_string(),
            record.at.to_string(),
            text::line(&record.route),
            text::line(&format!("{} {}", record.method, record.request_id)),
            text::line(&record.cause),
            record.took_ms.to_string(),
        ]));
    }
    table.trim_fmt()
}

pub(in crate::cli) fn record(detail: &RecordDetail) -> String {
    let record = &detail.summary;
    let mut facts = plain();
    for (name, value) in [
        ("number", record.id.to_string()),
        ("at", record.at.to_string()),
        ("route", format!("{} to {}", record.route, record.upstream)),
        ("request id", record.request_id.clone()),
        ("failed", record.cause.clone()),
        ("certainty", record.certainty.replace('_', " ")),
        ("took", format!("{} ms", record.took_ms)),
    ] {
        facts.add_row(cells([name.to_owned(), value]));
    }
    let request = format!("{} {}", record.method, text::line(&detail.request.target));
    let mut out = format!("{}\n\n{}", facts.trim_fmt(), said(&request, &detail.request));
    if let Some(answer) = &detail.answer {
        let status = record.status.map_or_else(String::new, |status| format!("answer {status}"));
        out += &format!("\n\n{}", said(&status, answer));
    }
    out
}

fn said(first: &str, message: &RecordedMessage) -> String {
    let headers = message.headers.iter();
    let headers: String = headers
        .map(|field| format!("{}: {}\n", text::line(&field.name), text::line(&field.value)))
        .collect();
    let body = match (&message.body, &message.no_body) {
        (Some(body), _) => body.lines().map(text::line).collect::<Vec<_>>().join("\n"),
        (None, why) => format!("(no body: {})", why.as_deref().unwrap_or("none")),
    };
    format!("{first}\n{headers}\n{body}")
}
