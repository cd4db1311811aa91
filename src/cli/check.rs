//! `standin check`: what each route will do and each risk it takes, told from the configuration alone.
//!
//! Judged here, data in `check/report.rs`, words in `check/words.rs`. Reads no store and asks no app. Shows no value behind a reference.

mod report;
mod route;
mod words;

pub use self::report::*;
use crate::config::{
    Config, DedupesBy, Role, RouteConfig, RoutePattern, StandInConfig, StandInOn, Trigger,
    Unanswered, UpstreamConfig,
    units::{write_duration, write_size},
    warnings::rounded,
};

/// What this configuration will do.
pub fn check(config: &Config) -> Report {
    let mut routes: Vec<(Option<RoutePattern>, RouteReport)> = config
        .route
        .iter()
        .map(|(name, route)| {
            (RoutePattern::parse(&route.matches).ok(), of_route(name, route, config))
        })
        .collect();
    routes.sort_by(|(one, _), (two, _)| one.cmp(two));
    let bytes_at_worst = config.route.values().filter_map(|route| config.most_bytes(route));
    Report {
        role: config.role,
        listen: config.listen.address,
        routes: routes.into_iter().map(|(_, report)| report).collect(),
        otherwise: config.default_upstream().map(|(name, _)| name.to_owned()),
        upstreams: config
            .upstream
            .iter()
            .map(|(name, upstream)| of_upstream(name, upstream))
            .collect(),
        store: StoreReport {
            path: config.store.path.display().to_string(),
            max_bytes: config.store.max_bytes,
            retention: write_duration(config.store.retention),
            dedupe_window: write_duration(config.store.dedupe_window),
            accepts_loss: config.store.ephemeral == crate::config::Ephemeral::AcceptLoss,
            bytes_at_worst: bytes_at_worst.fold(0, u64::saturating_add),
        },
        admin: AdminReport {
            address: config.admin.address,
            open_to_others: !config.admin.address.ip().is_loopback(),
            needs_token: config.admin.token.is_some(),
            health: config.admin.health,
        },
        replays_signed: config.replay.signing_key.is_some(),
        warnings: config.warnings(),
    }
}

fn of_route(name: &str, route: &RouteConfig, config: &Config) -> RouteReport {
    let upstream = config.upstream_of(route);
    let timeout = route.timeout.or(upstream.map(|(_, upstream)| upstream.timeout));
    RouteReport {
        name: name.to_owned(),
        matches: route.matches.clone(),
        upstream: upstream.map(|(name, _)| name.to_owned()).unwrap_or_default(),
        timeout: timeout.map(write_duration).unwrap_or_default(),
        stand_in: route.stand_in.as_ref().map(|stand_in| of_stand_in(route, stand_in, config)),
    }
}

fn of_stand_in(route: &RouteConfig, stand_in: &StandInConfig, config: &Config) -> StandInReport {
    let shown = |expr: &crate::expr::Expr| config.secrets.hide(expr.source());
    let has_egress = config.upstream_of(route).is_some_and(|(_, of)| of.egress.is_some());
    let (on, not_on) = causes(route, config.role, has_egress);
    let fixed = || ["the client's Idempotency-Key", "the request id"].map(str::to_owned).to_vec();
    StandInReport {
        on,
        not_on,
        accept_if: shown(&stand_in.accept_if),
        at_worst: at_worst(route, stand_in, config),
        answer: of_answer(stand_in, config),
        protected_by: route.app_dedupes.as_ref().map(|dedupes| Protection {
            header: match dedupes.by {
                DedupesBy::RequestId => config.request_id.header.clone(),
                DedupesBy::IdempotencyKey => "idempotency-key".to_owned(),
            },
            remembers: write_duration(dedupes.remembers),
        }),
        key: route.dedupe_by.as_ref().map_or_else(fixed, |by| vec![shown(by)]),
        principal: route.principal.as_ref().map_or_else(|| DEFAULT_PRINCIPAL.to_owned(), shown),
        sequence_by: sequence_by(route, config),
        expires: write_duration(stand_in.expires),
        unanswered: stand_in.unanswered,
        replay: of_replay(route),
        kept: kept(route),
    }
}

/// What leads to a stand-in, and what is left with what speaks against it here.
fn causes(route: &RouteConfig, role: Role, has_egress: bool) -> (Vec<&'static str>, Vec<NotOn>) {
    if role == Role::Standby {
        return (vec!["standby"], Vec::new());
    }
    let on = route.stands_in_on();
    let mut not_on: Vec<NotOn> = Vec::new();
    let may_be = |cause: &&StandInOn| **cause != StandInOn::Egress || has_egress;
    for cause in ALL_CAUSES.iter().filter(may_be).filter(|cause| !on.contains(cause)) {
        let why = match (cause, &route.app_dedupes) {
            (StandInOn::Always, _) => "the app is asked first",
            (cause, None) if route.needs_protection(*cause) => {
                "the app may have applied it, and nothing protects a replay"
            }
            (StandInOn::Egress, _) => "it is standin's own trouble, and no outage of the app",
            (StandInOn::ServerError, Some(_)) => "the app's own answer is passed on",
            _ => "not asked for",
        };
        match not_on.iter_mut().find(|not| not.why == why) {
            Some(not) => not.causes.push(cause.word()),
            None => not_on.push(NotOn { causes: vec![cause.word()], why }),
        }
    }
    (on.iter().map(StandInOn::word).collect(), not_on)
}

fn at_worst(route: &RouteConfig, stand_in: &StandInConfig, config: &Config) -> AtWorst {
    let at_most = &stand_in.at_most;
    let shown = |expr: &crate::expr::Expr| config.secrets.hide(expr.source());
    AtWorst {
        open: at_most.open,
        max_body: stand_in.max_body,
        bytes: config.most_bytes(route).unwrap_or_default(),
        sum: at_most.open_sum,
        sum_of: at_most.sum_of.as_ref().map(shown),
        per_customer: at_most.per_customer.as_ref().map(|customer| PerCustomerReport {
            count: customer.count,
            within: write_duration(customer.within),
            by: customer.by.as_ref().map_or_else(|| "the principal".to_owned(), shown),
        }),
    }
}

fn of_answer(stand_in: &StandInConfig, config: &Config) -> AnswerReport {
    let answer = &stand_in.answer;
    let body = match (&answer.json, &answer.body, &answer.body_file) {
        (Some(_), _, _) => "json".to_owned(),
        (_, Some(_), _) => "text".to_owned(),
        (_, _, Some(file)) => {
            format!("text from {}", config.secrets.hide(&file.display().to_string()))
        }
        _ => "empty".to_owned(),
    };
    let headers = answer.headers.keys().map(|name| name.to_ascii_lowercase()).collect();
    AnswerReport { status: answer.status, body, headers }
}

fn sequence_by(route: &RouteConfig, config: &Config) -> Option<String> {
    if let Some(by) = &route.sequence_by {
        return Some(config.secrets.hide(by.source()));
    }
    let method = RoutePattern::parse(&route.matches).ok()?.method;
    let ordered = |method: &http::Method| matches!(method.as_str(), "PUT" | "PATCH" | "DELETE");
    match method {
        Some(method) => ordered(&method).then(|| "the path".to_owned()),
        None => Some("the path, for PUT, PATCH and DELETE".to_owned()),
    }
}

fn of_replay(route: &RouteConfig) -> ReplayReport {
    let replay = &route.replay;
    ReplayReport {
        trigger: replay.trigger,
        max_attempts: replay.max_attempts.get(),
        at_once: replay.pace.get(),
        min_backoff: write_duration(replay.min_backoff),
        max_backoff: write_duration(replay.max_backoff),
        set_headers: replay.set_headers.keys().map(|name| name.to_ascii_lowercase()).collect(),
    }
}

fn kept(route: &RouteConfig) -> Kept {
    Kept {
        credentials: CREDENTIALS.into_iter().filter(|name| !route.replay.drops(name)).collect(),
        dropped: route.replay.redact.iter().map(|name| name.to_ascii_lowercase()).collect(),
        labels: route.labels.keys().cloned().collect(),
    }
}

fn of_upstream(name: &str, upstream: &UpstreamConfig) -> UpstreamReport {
    UpstreamReport {
        name: name.to_owned(),
        endpoints: upstream.endpoints.clone(),
        endpoint_is: upstream.endpoint_is,
        egress: upstream.egress.clone(),
        connect_timeout: write_duration(upstream.connect_timeout),
        timeout: write_duration(upstream.timeout),
        late_window: write_duration(upstream.late_window),
        breaker: BreakerReport {
            failures: upstream.breaker.failures,
            min_open: write_duration(upstream.breaker.min_open),
            max_open: write_duration(upstream.breaker.max_open),
        },
        health: upstream.health.path.clone(),
    }
}

const ALL_CAUSES: [StandInOn; 7] = [
    StandInOn::Connect,
    StandInOn::Breaker,
    StandInOn::Timeout,
    StandInOn::Reset,
    StandInOn::ServerError,
    StandInOn::Egress,
    StandInOn::Always,
];

const DEFAULT_PRINCIPAL: &str = "JWT `iss` and `sub`, else a hash of Authorization, else nobody: \
                                 who knows another's key can be shown its answer";

/// Request headers that commonly carry a secret.
const CREDENTIALS: [&str; 6] =
    ["authorization", "cookie", "x-api-key", "x-auth-token", "x-csrf-token", "x-xsrf-token"];
