//! What works, but perhaps not as meant. `check` and the start of `run` show it.

use super::{
    Config, EgressConfig, EndpointIs, Ephemeral, Role, RouteConfig, RoutePattern, StandInConfig,
    StandInOn, UpstreamConfig, Warning,
    units::{write_duration, write_size},
};

impl Config {
    /// Everything worth a second look, in the order of the file's sections.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut found = Found(Vec::new());
        self.warn_of_places(&mut found);
        self.warn_of_store(&mut found);
        for (name, upstream) in &self.upstream {
            self.warn_of_upstream(name, upstream, &mut found);
        }
        for (name, route) in &self.route {
            match &route.stand_in {
                Some(stand_in) => self.warn_of_stand_in(name, route, stand_in, &mut found),
                None => self.warn_of_idle_keys(name, route, &mut found),
            }
        }
        for (name, pool) in &self.egress {
            self.warn_of_egress(name, pool, &mut found);
        }
        found.0
    }

    fn warn_of_egress(&self, name: &str, pool: &EgressConfig, found: &mut Found) {
        if !self.upstream.values().any(|upstream| upstream.egress.as_deref() == Some(name)) {
            found.add(&format!("egress.{name}"), "no upstream is reached through it");
        } else if pool.source.is_none()
            && pool.proxies.iter().all(|proxy| !proxy.only_for().is_empty())
        {
            found.add(
                &format!("egress.{name}.proxies"),
                "each belongs to some routes alone: health questions, and requests without a route, have no way out",
            );
        }
    }

    fn warn_of_places(&self, found: &mut Found) {
        let longest = self.upstream.values().map(|upstream| upstream.timeout).max();
        if let Some(longest) = longest.filter(|longest| *longest > self.drain) {
            found.add("drain", format!(
                "{} is less than the longest `timeout` = {}: a stop may cut requests that the app would still answer",
                write_duration(self.drain), write_duration(longest)
            ));
        }
        if self.admin.token.as_ref().is_some_and(|token| token.0.len() < SHORTEST_TOKEN) {
            found.add(
                "admin.token",
                format!("shorter than {SHORTEST_TOKEN} characters: it can be guessed"),
            );
        }
        let proxies = self.listen.proxy_protocol.iter().flat_map(|proxies| &proxies.from);
        if proxies.into_iter().any(|net| net.prefix_len() == 0) {
            found.add(
                "listen.proxy_protocol.from",
                "every peer is believed: whoever connects can pose as any client",
            );
        }
        if self.request_id.trust.iter().any(|net| net.prefix_len() == 0) {
            found.add(
                "request_id.trust",
                "every client's request id is taken: one can pose as another's retry",
            );
        }
    }

    fn warn_of_store(&self, found: &mut Found) {
        let store = &self.store;
        if store.retention < store.dedupe_window {
            found.add("store.retention", format!(
                "{} is less than `dedupe_window` = {}: keys outlive the entries that explain them",
                write_duration(store.retention), write_duration(store.dedupe_window)
            ));
        }
        if store.ephemeral == Ephemeral::AcceptLoss {
            found.add(
                "store.ephemeral",
                "on a disk that will not live, acknowledged requests may be lost",
            );
        }
        let worst = self.route.values().filter_map(|route| self.most_bytes(route));
        let worst = worst.fold(0, u64::saturating_add);
        if worst > store.max_bytes {
            found.add(
                "store.max_bytes",
                format!(
                    "the routes may hold {} at worst: past {} standin stops accepting",
                    rounded(worst),
                    write_size(store.max_bytes)
                ),
            );
        }
    }

    fn warn_of_upstream(&self, name: &str, upstream: &UpstreamConfig, found: &mut Found) {
        let used =
            |route: &RouteConfig| self.upstream_of(route).is_some_and(|(used, _)| used == name);
        let routes: Vec<_> = self.route.values().filter(|route| used(route)).collect();
        let is_backup = self.upstream.values().any(|one| one.backup.iter().any(|one| one == name));
        let is_default = self.default_upstream().is_some_and(|(default, _)| default == name);
        if routes.is_empty() && !is_default && !is_backup {
            found.add(&format!("upstream.{name}"), "no route leads to it");
        }
        if upstream.tls.as_ref().is_some_and(|tls| tls.insecure_accept_any_certificate) {
            found.add(
                &format!("upstream.{name}.tls.insecure_accept_any_certificate"),
                "NOBODY'S CERTIFICATE IS LOOKED AT: whoever is between can read and change every request; write `ca_file`",
            );
        }
        if upstream.endpoint_is == EndpointIs::Proxy {
            warn_of_proxy(name, upstream, &routes, found);
        }
        let timeouts = routes.iter().map(|route| route.timeout.unwrap_or(upstream.timeout));
        if let Some(longest) = timeouts.max().filter(|longest| *longest > upstream.late_window) {
            found.add(&format!("upstream.{name}.late_window"), format!(
                "{} is less than the longest `timeout` = {}: a replay may reach the app while it still works on the first try",
                write_duration(upstream.late_window), write_duration(longest)
            ));
        }
    }

    fn warn_of_stand_in(
        &self,
        name: &str,
        route: &RouteConfig,
        stand_in: &StandInConfig,
        found: &mut Found,
    ) {
        let at = |key: &str| format!("route.{name}{key}");
        if route.app_dedupes.is_none() {
            found.add(&at(""), "without `app_dedupes` nothing protects replays: stands in only where no byte can have \
                 reached the app (connect, breaker), not on a timeout");
        }
        match (&route.principal, &route.dedupe_by) {
            (Some(_), _) => {}
            (None, Some(_)) => found.add(
                &at(".dedupe_by"),
                "without `principal`, clients who send no `Authorization` share their keys: one \
                 can be shown the answer to another's equal request",
            ),
            (None, None) if route.knows_clients_by_cookies() => found.add(
                &at(""),
                "its clients have cookies, and without `principal` only `Authorization` tells one from \
                 another: who guesses another's `Idempotency-Key` can be shown the answer to an equal \
                 request, or use the key up before it; `principal = \"request.cookies.NAME\"` tells them apart",
            ),
            (None, None) => {}
        }
        let budget = self.listen.limits.copied_bodies;
        if stand_in.max_body > budget {
            found.add(
                &at(".stand_in.max_body"),
                format!(
                    "{} is more than `listen.limits.copied_bodies` = {}: larger bodies can never be kept",
                    write_size(stand_in.max_body),
                    write_size(budget)
                ),
            );
        }
        if stand_in.accept_if.source().trim() == "true" {
            found.add(&at(".stand_in.accept_if"), "accepts every request, up to the caps");
        }
        if route.stands_in_on().contains(&StandInOn::Always) {
            found.add(
                &at(".stand_in.on"),
                "\"always\": the app is never asked first, even while it is up",
            );
        }
        if !(200..300).contains(&stand_in.answer.status) {
            found.add(&at(".stand_in.answer.status"), format!(
                "{} does not tell the client that its request was accepted, and yet it is stored and replayed",
                stand_in.answer.status
            ));
        }
        if route.replay.max_backoff >= stand_in.expires {
            found.add(
                &at(".replay.max_backoff"),
                format!(
                    "an entry may expire (`expires` = {}) while it waits for its next try",
                    write_duration(stand_in.expires)
                ),
            );
        }
        match RoutePattern::parse(&route.matches).map(|pattern| pattern.method) {
            Ok(None) => {
                found.add(&at(".match"), "takes every method: reads are stored and replayed too")
            }
            Ok(Some(method)) if method.is_safe() => {
                found.add(
                    &at(".match"),
                    format!("a stand-in for {method} stores and replays what only reads"),
                );
            }
            _ => {}
        }
    }

    /// Keys that say nothing because the route never stands in.
    fn warn_of_idle_keys(&self, name: &str, route: &RouteConfig, found: &mut Found) {
        if self.role == Role::Standby {
            found.add(
                &format!("route.{name}"),
                "a standby without [stand_in] only answers that it cannot help",
            );
        }
        let keys = [
            ("app_dedupes", route.app_dedupes.is_some()),
            ("dedupe_by", route.dedupe_by.is_some()),
            ("principal", route.principal.is_some()),
            ("sequence_by", route.sequence_by.is_some()),
            ("labels", !route.labels.is_empty()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, written)| *written) {
            found.add(&format!("route.{name}.{key}"), "has no effect without [stand_in]");
        }
    }

    /// What the open entries of a route may take on disk at worst.
    pub fn most_bytes(&self, route: &RouteConfig) -> Option<u64> {
        let stand_in = route.stand_in.as_ref()?;
        let each = stand_in.max_body.saturating_add(self.listen.limits.head);
        Some(each.saturating_mul(stand_in.at_most.open))
    }
}

/// Where a proxy takes the connections, what standin can tell from them alone is little.
fn warn_of_proxy(
    name: &str,
    upstream: &UpstreamConfig,
    routes: &[&RouteConfig],
    found: &mut Found,
) {
    let stand_in = || routes.iter().filter(|route| route.stand_in.is_some());
    if upstream.health.path.is_none() && stand_in().next().is_some() {
        found.add(
            &format!("upstream.{name}.health.path"),
            "absent: a proxy may answer `HEAD /` itself while the app is down",
        );
    }
    if stand_in().any(|route| route.app_dedupes.is_none()) {
        found.add(
            &format!("upstream.{name}.endpoint_is"),
            "a connection to a proxy nearly always succeeds: routes without `app_dedupes` stand in only once the \
             breaker is open",
        );
    }
}

struct Found(Vec<Warning>);

impl Found {
    fn add(&mut self, key: &str, message: impl Into<String>) {
        self.0.push(Warning { key: key.to_owned(), message: message.into() });
    }
}

/// A size for people: `1.0 GiB`.
pub(crate) fn rounded(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// Long enough that guessing is hopeless.
const SHORTEST_TOKEN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(text: &str) -> Vec<String> {
        let whole = format!("[upstream.app]\nendpoints = [\"http://127.0.0.1:3000\"]\n{text}");
        let config = Config::parse(&whole, "test.toml").unwrap();
        config.warnings().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_newcomers_form_gives_no_warning() {
        let text = r#"
            [route.checkout]
            match = "POST /checkout"
            app_dedupes = { by = "x-request-id", for = "7d" }
            [route.checkout.stand_in]
            accept_if = 'body.cents <= 5000'
            answer = { status = 201 }
        "#;
        assert_eq!(warnings(text), [""; 0]);
    }

    #[test]
    fn clients_with_cookies_need_a_principal() {
        let found = |route: &str, more: &str| {
            let text = format!(
                "[route.a]\nmatch = \"POST /a\"\napp_dedupes = {{ by = \"x-request-id\", for = \"7d\" }}\n{route}\n\
                 [route.a.stand_in]\naccept_if = \"body.n == 1\"\nanswer = {{ status = 201 }}\n{more}\n"
            );
            let told = warnings(&text);
            assert!(told.iter().all(|warning| warning.contains("cookies")), "{told:?}");
            told.len()
        };
        let by_cookie = "at_most = { per_customer = { by = \"request.cookies.id\", count = 1, within = \"1h\" } }";
        assert_eq!(found("labels = { session = \"request.cookies.session\" }", ""), 1);
        assert_eq!(found("", by_cookie), 1);
        assert_eq!(found("", "[route.a.replay]\nredact = [\"Cookie\"]"), 1);
        assert_eq!(found("", ""), 0);
        assert_eq!(found("principal = \"request.cookies.session\"", by_cookie), 0);
        assert_eq!(found("labels = { user = \"jwt.sub\" }", by_cookie), 0, "they have tokens too");
    }

    #[test]
    fn what_a_proxy_hides_is_said() {
        let found = |more: &str| {
            let route = "[route.a]\nmatch = \"POST /a\"\n[route.a.stand_in]\naccept_if = \"body.n == 1\"\n\
                         answer = { status = 201 }";
            let all = warnings(&format!("{more}\n{route}")).join("\n");
            ["health.path", "endpoint_is"].map(|key| all.contains(&format!("`upstream.app.{key}")))
        };
        assert_eq!(found("endpoint_is = \"proxy\""), [true, true]);
        assert_eq!(found("endpoint_is = \"proxy\"\nhealth = { path = \"/up\" }"), [false, true]);
        assert_eq!(found("endpoint_is = \"app\""), [false, false]);
    }

    #[test]
    fn what_may_not_be_meant_is_said() {
        let text = r#"
            late_window = "5s"
            [store]
            retention = "1d"
            max_bytes = "100MiB"
            [admin]
            token = "short"
            [request_id]
            trust = ["0.0.0.0/0"]
            [route.a]
            match = "/a"
            dedupe_by = "body.id"
            [route.a.stand_in]
            accept_if = "true"
            answer = { status = 503 }
            [route.b]
            match = "GET /b"
            sequence_by = "request.path"
        "#;
        let found = warnings(text).join("\n");
        for key in [
            "admin.token",
            "request_id.trust",
            "store.retention",
            "store.max_bytes",
            "upstream.app.late_window",
            "route.a`",
            "route.a.dedupe_by",
            "route.a.stand_in.accept_if",
            "route.a.stand_in.answer.status",
            "route.a.match",
            "route.b.sequence_by",
        ] {
            assert!(found.contains(&format!("`{key}")), "{key} is not in\n{found}");
        }
    }
}
