//! `[route.NAME.replay]`: bounds, and that no answer of the app has two meanings.

use super::{route::replay_headers, upstream::not_above, zero};
use crate::config::{Config, OutcomeRule, RouteConfig, document::Document};

pub(super) fn find(name: &str, route: &RouteConfig, config: &Config, document: &mut Document<'_>) {
    let replay = &route.replay;
    let at = |key| ["route", name, "replay", key];
    for (key, count, most) in [
        ("max_attempts", replay.max_attempts.get(), MOST_ATTEMPTS),
        ("pace", replay.pace.get(), MOST_AT_ONCE),
    ] {
        if count > most {
            document.fault(&at(key), &format!("must be at most {most}"));
        }
    }
    zero(document, &at("min_backoff"), replay.min_backoff);
    not_above(
        document,
        (&at("min_backoff"), replay.min_backoff),
        (&at("max_backoff"), replay.max_backoff),
    );
    statuses(name, route, document);
    replay_headers(name, route, config, document);
}

fn statuses(name: &str, route: &RouteConfig, document: &mut Document<'_>) {
    let replay = &route.replay;
    let rules = [
        ("success", &replay.success),
        ("already_applied", &replay.already_applied),
        ("not_applied", &replay.not_applied),
        ("retry", &replay.retry),
        ("declined", &replay.declined),
    ];
    let mut seen: Vec<(u16, &str)> = Vec::new();
    for (key, rule) in rules {
        let path = ["route", name, "replay", key];
        let Some(OutcomeRule::Statuses(list)) = rule else { continue };
        if list.is_empty() && document.is_whole(&path) {
            document.fault(&path, "empty: leave it out for the default, or list statuses");
        }
        for status in list {
            if !(200..=599).contains(status) {
                document.fault(&path, &format!("{status} is not the status of an answer"));
            }
            if let Some((_, other)) = seen.iter().find(|(known, _)| known == status) {
                document.fault(&path, &format!("{status} is in `{other}` already"));
            }
        }
        seen.extend(list.iter().map(|status| (*status, key)));
    }
}

const MOST_ATTEMPTS: u32 = 1000;
const MOST_AT_ONCE: u32 = 10_000;
