//! Progress of a replay run while somebody watches.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

use super::{numbers_of, say, state};
use crate::admin::{text, view::RunStatus};

/// Progress of a run: a bar on a terminal, one line per change elsewhere, one JSON line per change for programs.
pub(in crate::cli) struct Progress {
    json: bool,
    bar: Option<ProgressBar>,
    last: Option<RunStatus>,
}

impl Progress {
    pub(in crate::cli) fn new(json: bool) -> Self {
        let bar = (!json && std::io::stderr().is_terminal()).then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
            let bar = ProgressBar::new(0);
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { json, bar, last: None }
    }

    pub(in crate::cli) fn show(&mut self, run: &RunStatus) {
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

    pub(in crate::cli) fn end(&mut self, run: &RunStatus) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !self.json {
            say(&super::run(run));
        }
    }
}
