//! The report as people read it.

use std::fmt::{Display, Formatter, Result};

use super::{Report, Role, rounded, route, write_size};
use crate::config::EndpointIs;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.role {
            Role::Inline => writeln!(f, "Inline, on {}", self.listen)?,
            Role::Standby => writeln!(
                f,
                "Standby, on {}: answers every request itself, asks the app only for replays",
                self.listen
            )?,
        }
        for route in &self.routes {
            writeln!(f)?;
            route::write(f, route)?;
        }
        writeln!(f)?;
        match (&self.otherwise, self.role) {
            (Some(upstream), Role::Inline) => {
                writeln!(f, "Everything else → {upstream}, passed through; never stood in for")?;
            }
            _ => writeln!(f, "Everything else gets an honest error")?,
        }
        writeln!(f)?;
        self.write_rest(f)
    }
}

impl Report {
    fn write_rest(&self, f: &mut Formatter<'_>) -> Result {
        for upstream in &self.upstreams {
            writeln!(f, "[upstream.{}] {}", upstream.name, upstream.endpoints.join(", "))?;
            if upstream.endpoint_is == EndpointIs::Proxy {
                line(f, "between", "a proxy: its own 502, 503 and 504 are no answers of the app")?;
            }
            if let Some(pool) = &upstream.egress {
                line(f, "egress", &format!("through the proxies of [egress.{pool}]"))?;
            }
            line(
                f,
                "times",
                &format!(
                    "connects within {}, answers within {}; a late answer counts for {} more",
                    upstream.connect_timeout, upstream.timeout, upstream.late_window
                ),
            )?;
            let asked = upstream
                .health
                .as_deref()
                .map_or("HEAD /".to_owned(), |path| format!("GET {path}"));
            line(
                f,
                "breaker",
                &format!(
                    "down after {} failures in a row, tried again after {} to {}, asked by {asked}",
                    upstream.breaker.failures, upstream.breaker.min_open, upstream.breaker.max_open
                ),
            )?;
        }
        let store = &self.store;
        writeln!(f, "[store] {}", store.path)?;
        line(
            f,
            "limits",
            &format!(
                "accepts nothing more at {}; all routes together need {} at worst",
                write_size(store.max_bytes),
                rounded(store.bytes_at_worst)
            ),
        )?;
        line(
            f,
            "keeps",
            &format!(
                "closed entries for {}, their keys for {}",
                store.retention, store.dedupe_window
            ),
        )?;
        line(
            f,
            "disk",
            if store.accepts_loss {
                "stands in even on a disk that will not live: acknowledged requests may be lost"
            } else {
                "stands in only on a local disk that lives"
            },
        )?;
        writeln!(f, "[replay]")?;
        let signed = if self.replays_signed {
            "yes: the app can tell a replay from what a client made up"
        } else {
            "no"
        };
        line(f, "signed", signed)?;
        writeln!(f, "[admin] {}", self.admin.address)?;
        line(
            f,
            "open to",
            match (self.admin.open_to_others, self.admin.needs_token) {
                (true, _) => "other machines, with the token",
                (false, true) => "this machine, with the token",
                (false, false) => "everybody on this machine, without a token",
            },
        )?;
        if let Some(health) = self.admin.health {
            line(
                f,
                "health",
                &format!("/healthz, /readyz and /metrics are open to all on {health}"),
            )?;
        }
        if !self.warnings.is_empty() {
            writeln!(f, "\nWarnings")?;
        }
        for warning in &self.warnings {
            writeln!(f, "  {warning}")?;
        }
        Ok(())
    }
}

pub(super) fn line(f: &mut Formatter<'_>, what: &str, text: &str) -> Result {
    writeln!(f, "  {what:<10} {text}")
}
