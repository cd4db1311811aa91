//! `[route.NAME.stand_in]`: that what is accepted is protected, bounded, and answered with an answer.

use std::path::Path;

use super::{answer, zero};
use crate::config::{
    AtMost, Config, Role, RouteConfig, StandInConfig, StandInOn,
    document::Document,
    units::{write_duration, write_size},
};

pub(super) fn find(
    name: &str,
    route: &RouteConfig,
    stand_in: &StandInConfig,
    config: &Config,
    document: &mut Document<'_>,
    folder: &Path,
) {
    causes(name, route, stand_in, config, document);
    caps(name, &stand_in.at_most, document);
    times(name, route, stand_in, config, document);
    sizes(name, stand_in, config, document);
    answer::find(name, &stand_in.answer, config, document, folder);
}

/// Without protection, only what certainly never reached the app may be stood in for.
fn causes(
    name: &str,
    route: &RouteConfig,
    stand_in: &StandInConfig,
    config: &Config,
    document: &mut Document<'_>,
) {
    let path = ["route", name, "stand_in", "on"];
    let protected = route.app_dedupes.is_some() || !document.sound(&["route", name, "app_dedupes"]);
    if let Some(on) = &stand_in.on {
        if on.is_empty() && document.is_whole(&path) {
            document.fault(&path, "empty: leave it out for the default, or leave out [stand_in]");
        }
        for (at, cause) in on.iter().enumerate() {
            if on[..at].contains(cause) {
                document.fault(&path, &format!("\"{}\" is there twice", cause.word()));
            }
        }
        let pool = config.upstream_of(route).map(|(_, upstream)| upstream.egress.is_some());
        if on.contains(&StandInOn::Egress) && pool == Some(false) {
            document
                .fault(&path, "\"egress\": its upstream is reached directly, it has no `egress`");
        }
        let risky: Vec<&str> = on
            .iter()
            .filter(|cause| route.needs_protection(**cause))
            .map(StandInOn::word)
            .collect();
        if !risky.is_empty() && !protected {
            let message = format!(
                "{} may have been applied by the app: declare `app_dedupes`, or only \"connect\" and \"breaker\"",
                risky.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            );
            document.fault(&path, &message);
        }
    }
    if config.role == Role::Standby && !protected && document.sound(&["role"]) {
        document.fault(
            &["route", name, "stand_in"],
            "a standby cannot know what reached the app: declare `app_dedupes` for this route",
        );
    }
}

fn caps(name: &str, at_most: &AtMost, document: &mut Document<'_>) {
    let at = |key| ["route", name, "stand_in", "at_most", key];
    if at_most.open == 0 {
        document.fault(&at("open"), "must not be zero: nothing could be accepted");
    }
    if at_most.open > MOST_OPEN {
        document.fault(&at("open"), &format!("must be at most {MOST_OPEN}"));
    }
    if at_most.open_sum.is_some() && at_most.sum_of.is_none() && document.sound(&at("sum_of")) {
        document.fault(&at("open_sum"), "needs `sum_of`: the sum of what?");
    }
    if at_most.sum_of.is_some() && at_most.open_sum.is_none() && document.sound(&at("open_sum")) {
        document.fault(&at("sum_of"), "needs `open_sum`: how much at most?");
    }
    if at_most.open_sum.is_some_and(|sum| sum <= 0) {
        document.fault(&at("open_sum"), "must be more than zero: nothing could be accepted");
    }
    if let Some(customer) = &at_most.per_customer {
        let within = |key| ["route", name, "stand_in", "at_most", "per_customer", key];
        if customer.count == 0 {
            document.fault(&within("count"), "must not be zero: nothing could be accepted");
        }
        zero(document, &within("within"), customer.within);
    }
}

fn times(
    name: &str,
    route: &RouteConfig,
    stand_in: &StandInConfig,
    config: &Config,
    document: &mut Document<'_>,
) {
    let path = ["route", name, "stand_in", "expires"];
    let expires = stand_in.expires;
    zero(document, &path, expires);
    // Where nothing about it is written, the key that it fights with is to blame.
    let blame = |document: &mut Document<'_>, other: &[&str], message: &str| {
        if document.sound(&path) && document.sound(other) {
            let key = if document.is_written(&path) { &path[..] } else { other };
            document.fault(key, message);
        }
    };
    if let Some(dedupes) = &route.app_dedupes
        && expires >= dedupes.remembers
    {
        let message = format!(
            "`expires` = {} must be shorter than `app_dedupes.for` = {}: the app would have forgotten",
            write_duration(expires),
            write_duration(dedupes.remembers)
        );
        blame(document, &["route", name, "app_dedupes", "for"], &message);
    }
    let Some((upstream_name, upstream)) = config.upstream_of(route) else { return };
    if upstream.late_window >= expires && !expires.is_zero() {
        let message = format!(
            "`expires` = {} must be longer than `late_window` = {} of [upstream.{upstream_name}]: \
             nothing is sent before the one or after the other",
            write_duration(expires),
            write_duration(upstream.late_window)
        );
        blame(document, &["upstream", upstream_name, "late_window"], &message);
    }
}

fn sizes(name: &str, stand_in: &StandInConfig, config: &Config, document: &mut Document<'_>) {
    let path = ["route", name, "stand_in", "max_body"];
    let most = config.listen.limits.copied_bodies;
    if stand_in.max_body == 0 {
        document.fault(&path, "must not be zero");
    }
    let budget = ["listen", "limits", "copied_bodies"];
    // A default that does not fit is only a warning: whoever lowers the budget need not know of it.
    if stand_in.max_body > most && document.is_written(&path) && document.sound(&budget) {
        let message = format!(
            "{} is more than `listen.limits.copied_bodies` = {}: such a body could never be kept",
            write_size(stand_in.max_body),
            write_size(most)
        );
        document.fault(&path, &message);
    } else if stand_in.max_body > LARGEST_BODY {
        document.fault(&path, &format!("must be at most {}", write_size(LARGEST_BODY)));
    }
}

const MOST_OPEN: u64 = 10_000_000;
/// A row of the store must hold it with all that comes with it.
const LARGEST_BODY: u64 = 256 << 20;
