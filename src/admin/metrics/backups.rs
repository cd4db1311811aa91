//! Backups in the metrics: three series for each upstream that has any.

use std::fmt::Error;

use super::family::Out;
use crate::router::Routes;

pub(super) fn encode(routes: &Routes, out: &mut Out<'_>) -> Result<(), Error> {
    let mut family = out.counter(
        "standin_backup_requests",
        "Requests that went to the backups of an upstream, by what came of it",
    )?;
    for (upstream, backups) in routes.upstreams.iter().zip(&routes.backups) {
        let Some(backups) = backups else { continue };
        for (outcome, count) in [
            ("answered", &backups.answered),
            ("in_doubt", &backups.in_doubt),
            ("nobody", &backups.nobody),
        ] {
            let labels = [("upstream", &*upstream.name), ("outcome", outcome)];
            family.counter(&labels, count.now())?;
        }
    }
    Ok(())
}
