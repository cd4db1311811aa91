//! What the commands print: tables for people, progress on long work. Everything from outside is written without
//! control characters: a stored request must not drive the terminal.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use crate::admin::{
    text,
    view::{
        self, AnswerView, BodyView, EntryDetail, EntryList, EntryView, Field, HistoryView,
        ModeView, ModesView, RunList, RunStatus, Severity, Status,
    },
};

/// Prints a text and ends its line. A reader that has gone away is no failure of ours.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

pub(super) fn status(status: &Status) -> String {
    let mut out = String::new();
    for sentence in &status.sentences {
        let mark = match sentence.severity {
            Severity::Good => "ok",
            Severity::Note => "note",
            Severity::Warn => "attention",
            Severity::Alarm => "ALARM",
        };
        out += &format!("{mark}: {}\n", text::line(&sentence.text));
    }
    out += "\n";
    let mut routes = table(&[
        "route",
        "mode",
        "by the app",
        "stood in",
        "refused",
        "open",
        "held",
        "declined",
        "caps used",
        "oldest open",
    ]);
    numbers(&mut routes, &[2, 3, 4, 5, 6, 7]);
    for route in &status.routes {
        let caps: Vec<String> = route
            .caps
            .iter()
            .map(|cap| format!("{} {} of {} ({}%)", cap.cap, cap.used, cap.limit, cap.percent()))
            .collect();
        let oldest = route.oldest_open.map(|at| view::span(status.now.0.since(at.0)));
        routes.add_row(cells([
            route.name.clone(),
            if route.stands_in { view::word(&route.mode) } else { "-".into() },
            (route.answers.app + route.answers.app_error).to_string(),
            route.answers.stood_in.to_string(),
            route.answers.refused.to_string(),
            route.open.to_string(),
            route.held.to_string(),
            route.declined.to_string(),
            caps.join("\n"),
            oldest.unwrap_or_default(),
        ]));
    }
    if !status.routes.is_empty() {
        out += &format!("{}\n\n", routes.trim_fmt());
    }
    let mut upstreams = table(&["upstream", "endpoints", "condition", "since", "cause"]);
    for upstream in &status.upstreams {
        upstreams.add_row(cells([
            upstream.name.clone(),
            upstream.endpoints.join(", "),
            upstream.condition.clone(),
            upstream.since.map(|at| at.short(status.now.0)).unwrap_or_default(),
            upstream.cause.clone().unwrap_or_default(),
        ]));
    }
    out += &format!("{}\n\n", upstreams.trim_fmt());
    let accepts = match &status.store.why {
        None => "accepts".to_owned(),
        Some(why) => format!("does not accept: {}", text::line(why)),
    };
    out += &format!(
        "store {accepts}, {}; standin {}, {}, started {} ago\n",
        view::bytes(status.store.bytes),
        text::line(&status.version),
        text::line(&status.role),
        view::span(status.now.0.since(status.started_at.0)),
    );
    out + &modes(&status.modes)
}

pub(super) fn modes(modes: &ModesView) -> String {
    let words = |on: &str, mode: &ModeView| {
        let until = mode.until.map(|until| format!(" until {until}")).unwrap_or_default();
        let mode_word = view::word(&mode.mode);
        let (on, who, why) = (text::line(on), text::line(&mode.who), text::line(&mode.why));
        format!("mode of {on}: {mode_word}{until}, by {who}: {why}\n")
    };
    let mut out = match &modes.all {
        Some(all) => words("all routes", all),
        None => "mode of all routes: auto\n".to_owned(),
    };
    for (route, mode) in &modes.routes {
        out += &words(route, mode);
    }
    out
}

pub(super) fn entries(list: &EntryList) -> String {
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

pub(super) fn entry(detail: &EntryDetail) -> String {
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

/// One line after a decision.
pub(super) fn decided(detail: &EntryDetail) -> String {
    format!(
        "{} is {} now.",
        text::line(&detail.entry.receipt),
        text::line(&detail.entry.state_words())
    )
}

pub(super) fn runs(list: &RunList) -> String {
    if list.runs.is_empty() {
        return "No replay run yet.".into();
    }
    let mut table = table(&[
        "run",
        "scope",
        "state",
        "started",
        "by",
        "total",
        "completed",
        "applied before",
        "declined",
        "held",
        "again",
    ]);
    numbers(&mut table, &[5, 6, 7, 8, 9, 10]);
    for run in &list.runs {
        table.add_row(cells([
            run.id.clone(),
            run.scope.clone(),
            state(run),
            run.started_at.to_string(),
            run.who.clone(),
            run.total.to_string(),
            run.completed.to_string(),
            run.already_applied.to_string(),
            run.declined.to_string(),
            run.held.to_string(),
            run.again.to_string(),
        ]));
    }
    table.trim_fmt()
}

/// A run in two lines.
pub(super) fn run(run: &RunStatus) -> String {
    format!(
        "run {} of {}: {}\n{}",
        text::line(&run.id),
        text::line(&run.scope),
        text::line(&state(run)),
        numbers_of(run)
    )
}

fn numbers_of(run: &RunStatus) -> String {
    format!(
        "{} of {} finished: {} completed, {} applied before, {} declined, {} held; {} attempts repeated",
        run.finished(),
        run.total,
        run.completed,
        run.already_applied,
        run.declined,
        run.held,
        run.again
    )
}

fn state(run: &RunStatus) -> String {
    match &run.state_why {
        Some(why) => format!("{}: {why}", run.state),
        None => run.state.clone(),
    }
}

/// Progress of a run: a bar on a terminal, one line per change elsewhere, one JSON line per change for programs.
pub(super) struct Progress {
    json: bool,
    bar: Option<ProgressBar>,
    last: Option<RunStatus>,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
            let bar = ProgressBar::new(0);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { json, bar, last: None }
    }

    pub(super) fn show(&mut self, run: &RunStatus) {
        if self.last.as_ref() == Some(run) {
            return;
        }
        if self.json {
            say(&serde_json::to_string(run).unwrap_or_default());
        } else if let Some(bar) = &self.bar {
            bar.set_length(run.total);
            bar.set_position(run.finished());
            let left = format!(
                "{} declined, {} held, {} in flight",
                run.declined, run.held, run.in_flight
            );
            bar.set_message(format!("{}: {left}", text::line(&state(run))));
        } else {
            let _ = writeln!(std::io::stderr(), "{}; {}", text::line(&state(run)), numbers_of(run));
        }
        self.last = Some(run.clone());
    }

    pub(super) fn end(&mut self, run: &RunStatus) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.json {
            say(&self::run(run));
        }
    }
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

fn table(headings: &[&str]) -> Table {
    let mut table = plain();
    let bold = std::io::stdout().is_terminal();
    table.set_header(headings.iter().map(|heading| {
        let cell = Cell::new(heading.to_uppercase());
        if bold { cell.add_attribute(Attribute::Bold) } else { cell }
    }));
    table
}

/// As wide as the terminal on a terminal, as wide as needed elsewhere.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn numbers(table: &mut Table, columns: &[usize]) {
    for &column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn cells<const N: usize>(texts: [String; N]) -> Vec<Cell> {
    texts
        .iter()
        .map(|text| Cell::new(text.lines().map(text::line).collect::<Vec<_>>().join("\n")))
        .collect()
}
