//! Backups: that their names lead somewhere, and never back.

use crate::config::{Config, UpstreamConfig, document::Document, near, paths::index};

pub(super) fn find(config: &Config, document: &mut Document<'_>) {
    for (name, upstream) in &config.upstream {
        let names = names(name, upstream, config, document);
        let path = ["upstream", name, "backup"];
        let chain = config.backups_of(name);
        if names && let Some(back) = chain.iter().find(|one| leads_to(config, one, name)) {
            let message =
                format!("leads back to `{name}`, by way of `{back}`: requests would go round");
            document.fault(&path, &message);
        }
        if chain.len() > MOST_BACKUPS {
            let message = format!("more than {MOST_BACKUPS} upstreams, those of backups included");
            document.fault(&path, &message);
        }
    }
}

/// Whether they are all as they should be, but for where they lead.
fn names(
    name: &str,
    upstream: &UpstreamConfig,
    config: &Config,
    document: &mut Document<'_>,
) -> bool {
    let mut sound = true;
    for (at, backup) in upstream.backup.iter().enumerate() {
        let fault = match config.upstream.get(backup) {
            _ if backup == name => "an upstream is no backup of itself".to_owned(),
            _ if upstream.backup[..at].contains(backup) => format!("`{backup}` is there twice"),
            None => {
                let guess = near::guess(backup, config.upstream.keys().map(String::as_str));
                format!("there is no [upstream.{backup}]{guess}")
            }
            Some(other) if other.egress.is_some() => format!(
                "`{backup}` is reached through egress proxies, whose rules are those of its own routes: it can be no backup"
            ),
            Some(_) => continue,
        };
        sound = false;
        document.fault(&["upstream", name, "backup", &index(at)], &fault);
    }
    sound
}

/// Whether one names the other as its backup.
fn leads_to(config: &Config, from: &str, to: &str) -> bool {
    config.upstream.get(from).is_some_and(|upstream| upstream.backup.iter().any(|one| one == to))
}

/// Each may cost the client the time of a connection.
const MOST_BACKUPS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        let app = |name: &str, port: u16| {
            format!("[upstream.{name}]\nendpoints = [\"http://127.0.0.1:{port}\"]\n")
        };
        let mut whole = String::new();
        for (at, line) in text.lines().enumerate() {
            let (name, keys) = line.split_once(':').unwrap();
            whole += &format!("{}{keys}\n", app(name, 3000 + at as u16));
        }
        Config::parse(&whole, "test.toml").err().map_or_else(String::new, |all| all.to_string())
    }

    #[test]
    fn names_lead_somewhere_and_never_back() {
        let linked = |a: &str, b: &str, c: &str| {
            faults(&format!("a:backup = {a}\nb:default = true\nc:backup = {c}\nd:backup = {b}"))
        };
        assert_eq!(linked("[\"b\", \"c\"]", "[]", "[\"b\"]"), "", "two ways to one are no loop");
        assert!(linked("[\"c\"]", "[\"a\"]", "[\"d\"]").contains("leads back to `a`"));
        assert!(linked("[\"a\"]", "[]", "[]").contains("no backup of itself"));
        assert!(linked("[\"b\", \"b\"]", "[]", "[]").contains("`b` is there twice"));
        assert!(linked("[\"bb\"]", "[]", "[]").contains("there is no [upstream.bb]"));
    }

    #[test]
    fn the_order_is_ones_own_first() {
        let text = "[upstream.a]\nbackup = [\"b\", \"c\"]\n[upstream.b]\nbackup = [\"d\"]\n[upstream.c]\n\
                    backup = [\"d\", \"e\"]\n[upstream.d]\n[upstream.e]\nbackup = [\"a\"]";
        let config: Config = toml::from_str(text).unwrap();
        assert_eq!(config.backups_of("a"), ["b", "c", "d", "e"]);
        assert_eq!(config.backups_of("e"), ["a", "b", "c", "d"]);
        assert!(config.backups_of("d").is_empty());
    }
}
