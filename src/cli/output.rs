//! What the commands print: tables for people, progress on long work. Everything from outside is written without
//! control characters: a stored request must not drive the terminal.

mod entries;
mod progress;
mod records;

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table, presets};

pub(super) use self::{
    entries::{entries, entry},
    progress::Progress,
    records::{record, records},
};
use crate::admin::{
    text,
    view::{
        self, ConfigStatus, EntryDetail, ModeView, ModesView, Released, RunList, RunStatus,
        Severity, Status,
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
    out += &endpoints(status);
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

/// The endpoints of upstreams that have several.
fn endpoints(status: &Status) -> String {
    let mut endpoints = table(&[
        "upstream",
        "endpoint",
        "state",
        "since",
        "in flight",
        "answered",
        "failed",
        "latency",
        "last failure",
    ]);
    for upstream in status.upstreams.iter().filter(|upstream| upstream.endpoint_states.len() > 1) {
        for endpoint in &upstream.endpoint_states {
            endpoints.add_row(cells([
                upstream.name.clone(),
                endpoint.endpoint.clone(),
                endpoint.state.clone(),
                endpoint.since.map(|at| at.short(status.now.0)).unwrap_or_default(),
                endpoint.in_flight.unwrap_or_default().to_string(),
                endpoint.answered.unwrap_or_default().to_string(),
                endpoint.failures.to_string(),
                endpoint.latency(),
                endpoint.cause.clone().unwrap_or_default(),
            ]));
        }
    }
    if endpoints.is_empty() { String::new() } else { format!("{}\n\n", endpoints.trim_fmt()) }
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

/// One line after a decision.
/// What a reload came to.
pub(super) fn reloaded(config: &ConfigStatus) -> String {
    let changes = config.last.as_ref().map_or(&[][..], |last| &last.changes);
    if changes.is_empty() {
        return "The file says what it said before: nothing changed.".to_owned();
    }
    let lines: String =
        changes.iter().map(|change| format!("  {}\n", text::line(change))).collect();
    format!("In force now (generation {}):\n{}", config.generation, lines.trim_end())
}

pub(super) fn decided(detail: &EntryDetail) -> String {
    format!(
        "{} is {} now.",
        text::line(&detail.entry.receipt),
        text::line(&detail.entry.state_words())
    )
}

pub(super) fn released(released: &Released) -> String {
    let Released { released, moved, left } = *released;
    let mut said = format!("{} released.", view::counted(released, "entry is", "entries are"));
    if moved > 0 {
        said += &format!(
            " {} decided by somebody else meanwhile.",
            view::counted(moved, "was", "were")
        );
    }
    if left > 0 {
        said += &format!(" {} still held for this reason.", view::counted(left, "is", "are"));
    }
    said
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
