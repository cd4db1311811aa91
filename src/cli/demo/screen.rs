//! What the demo shows: a line per phase that moves on a terminal, and plain lines anywhere else.

use std::{io::IsTerminal, pin::pin, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};
use tokio::time::interval;

use super::receipt::Receipt;

/// See the module.
pub(super) struct Screen {
    /// Whether a line can move.
    live: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { live: std::io::stdout().is_terminal() }
    }

    pub(super) fn say(&self, line: &str) {
        println!("{line}");
    }

    /// Begins a phase.
    pub(super) fn title(&self, title: &str) {
        self.say("");
        self.say(&format!("  {}", self.strong(title)));
    }

    /// Shows `line` anew while `phase` runs, and leaves its last state on the screen.
    pub(super) async fn follow<T>(
        &self,
        phase: impl Future<Output = T>,
        line: impl Fn() -> String,
    ) -> T {
        let mut phase = pin!(phase);
        let mut ticks = interval(Duration::from_millis(100));
        let moving = self.live.then(moving_line);
        let result = loop {
            tokio::select! {
                result = &mut phase => break result,
                _ = ticks.tick() => if let Some(moving) = &moving {
                    moving.set_message(line());
                    moving.tick();
                },
            }
        };
        drop(moving);
        self.say(&format!("    {}", line()));
        result
    }

    pub(super) fn receipt(&self, receipt: &Receipt) {
        let over = "too large to be accepted while the shop was down: an honest no";
        let rows = [
            ("sent", receipt.tally.sent, ""),
            ("answered by the shop", receipt.tally.by_shop, ""),
            ("stood in", receipt.tally.stood_in, ""),
            ("declined", receipt.tally.declined, over),
            ("without an answer", receipt.tally.nothing, ""),
            ("replayed", receipt.replayed, ""),
            ("lost", receipt.lost, "acknowledged, but not in the ledger"),
            ("doubled", receipt.doubled, "in the ledger more than once"),
        ];
        self.title("Receipt: the customers' log against the shop's ledger");
        for (name, count, remark) in rows {
            if name == "without an answer" && count == 0 {
                continue;
            }
            let remark = if count > 0 { remark } else { "" };
            self.say(format!("    {name:<21}{count:>7}   {remark}").trim_end());
        }
        if receipt.verdict().is_ok() {
            self.say("");
            self.say("  Every order that was acknowledged is in the shop's ledger exactly once.");
        }
    }

    fn strong(&self, text: &str) -> String {
        let plain = !self.live || std::env::var_os("NO_COLOR").is_some();
        if plain { text.to_owned() } else { format!("\x1b[1m{text}\x1b[0m") }
    }
}

/// Gone without a trace when it is dropped, also when the demo is stopped half-way.
fn moving_line() -> ProgressBar {
    let style = ProgressStyle::with_template("    {msg} {spinner}");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        .with_finish(ProgressFinish::AndClear)
}

/// `1.2 s`
pub(super) fn seconds(span: Duration) -> String {
    format!("{:.1} s", span.as_secs_f64())
}
