//! Which proxies a kind of job takes: `only` and `deny` of its route, `only_for` of the proxy. Pure.

use std::sync::Arc;

use super::proxy::Proxy;

/// What is said of one kind of job. Jobs without a route have no lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub route: Option<Arc<str>>,
    /// Proxies it takes, and no others; all when empty.
    pub only: Vec<String>,
    /// Proxies it never takes.
    pub deny: Vec<String>,
}

/// A rule that a pool knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RuleId(pub(super) usize);

/// Jobs that take the same proxies take them in turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// Routes with equal lists.
    Lists(usize),
    /// A route that has proxies of its own.
    Own(usize),
}

/// All rules of a pool. One is never forgotten: there are as many as routes were ever configured.
#[derive(Debug, Default)]
pub(super) struct Rules(Vec<Known>);

#[derive(Debug)]
struct Known {
    rule: Rule,
    /// The first rule with equal lists.
    lists: usize,
    /// Whether a proxy is only for this route.
    has_own: bool,
}

impl Rule {
    /// `deny` is above all; then the proxy's `only_for`; then the route's `only`.
    fn allows(&self, proxy: &Proxy) -> bool {
        let named = |list: &[String]| list.iter().any(|name| **name == *proxy.name);
        let is_for_it = proxy.only_for.is_empty() || self.is_among(&proxy.only_for);
        !named(&self.deny) && is_for_it && (self.only.is_empty() || named(&self.only))
    }

    fn is_among(&self, routes: &[String]) -> bool {
        self.route.as_ref().is_some_and(|own| routes.iter().any(|route| **route == **own))
    }
}

impl Rules {
    /// The rule's place; the same for an equal one.
    pub(super) fn add(&mut self, mut rule: Rule) -> RuleId {
        for list in [&mut rule.only, &mut rule.deny] {
            list.sort();
            list.dedup();
        }
        if let Some(known) = self.0.iter().position(|known| known.rule == rule) {
            return RuleId(known);
        }
        let place = self.0.len();
        let same = |known: &Known| known.rule.only == rule.only && known.rule.deny == rule.deny;
        let lists = self.0.iter().position(same).unwrap_or(place);
        self.0.push(Known { rule, lists, has_own: false });
        RuleId(place)
    }

    /// For each rule, whether it allows the proxy.
    pub(super) fn allowing(&self, proxy: &Proxy) -> Vec<bool> {
        self.0.iter().map(|known| known.rule.allows(proxy)).collect()
    }

    /// The proxies have changed.
    pub(super) fn look_at<'p>(&mut self, proxies: impl Iterator<Item = &'p Proxy> + Clone) {
        for known in &mut self.0 {
            known.has_own = proxies.clone().any(|proxy| known.rule.is_among(&proxy.only_for));
        }
    }

    pub(super) fn group(&self, RuleId(place): RuleId) -> Group {
        match self.0.get(place) {
            Some(known) if known.has_own => Group::Own(place),
            Some(known) => Group::Lists(known.lists),
            None => Group::Lists(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::proxy::Credentials, *};

    fn proxy(name: &str, only_for: &[&str]) -> Proxy {
        let only_for: Vec<String> = only_for.iter().map(|route| (*route).to_owned()).collect();
        Proxy::parse(&format!("http://10.0.0.9:3128#{name}"), &Credentials::default(), &only_for)
            .unwrap()
    }

    fn rule(route: Option<&str>, only: &[&str], deny: &[&str]) -> Rule {
        let list = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Rule { route: route.map(Arc::from), only: list(only), deny: list(deny) }
    }

    #[test]
    fn who_takes_what() {
        let (free, own) = (proxy("free", &[]), proxy("own", &["reports"]));
        for (route, only, deny, takes_free, takes_own) in [
            (None, &[][..], &[][..], true, false),
            (Some("orders"), &[], &[], true, false),
            (Some("reports"), &[], &[], true, true),
            (Some("reports"), &["own"], &[], false, true),
            (Some("reports"), &["own"], &["own"], false, false),
            (Some("reports"), &[], &["own"], true, false),
            // `only` asks for a proxy; it does not take another route's away.
            (Some("orders"), &["own", "free"], &[], true, false),
            (Some("orders"), &["own"], &[], false, false),
            (Some("orders"), &[], &["free"], false, false),
        ] {
            let rule = rule(route, only, deny);
            assert_eq!(
                (rule.allows(&free), rule.allows(&own)),
                (takes_free, takes_own),
                "{rule:?}"
            );
        }
    }

    #[test]
    fn routes_with_equal_lists_take_turns_together_unless_one_has_proxies_of_its_own() {
        let mut rules = Rules::default();
        let orders = rules.add(rule(Some("orders"), &["a", "b"], &[]));
        let carts = rules.add(rule(Some("carts"), &["b", "a", "b"], &[]));
        let reports = rules.add(rule(Some("reports"), &[], &[]));
        assert_eq!(rules.group(orders), rules.group(carts));
        assert_ne!(rules.group(orders), rules.group(reports));
        assert_eq!(rules.add(rule(Some("orders"), &["b", "a"], &[])), orders);
        let own = proxy("own", &["carts"]);
        rules.look_at([&own].into_iter());
        assert_ne!(rules.group(orders), rules.group(carts));
        rules.look_at([].into_iter());
        assert_eq!(rules.group(orders), rules.group(carts));
    }
}
