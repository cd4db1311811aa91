//! Bad configurations are told all their faults at once, each with its line; the example, the reference and the schema
//! name every key; and no secret shows.

mod faulty;
mod reference;

use std::path::Path;

use standin::config::{Config, Faults};

fn faults(text: &str) -> Faults {
    Config::parse(text, "standin.toml").err().unwrap_or(Faults(Vec::new()))
}

/// Lines marked with `# <-` are where faults must be, and nowhere else; `# <- 2` where there are two.
fn marked_lines(text: &str) -> Vec<usize> {
    let marked = text.lines().enumerate().filter_map(|(at, line)| {
        let (_, mark) = line.split_once("# <-")?;
        Some(vec![at + 1; mark.trim().parse().unwrap_or(1)])
    });
    marked.flatten().collect()
}

#[test]
fn every_fault_is_told_with_its_line() {
    let mut told = String::new();
    let mut wrong = String::new();
    for (name, text) in faulty::CASES {
        let text = faulty::complete(text);
        let faults = faults(&text);
        let lines = faults.0.iter().map(|fault| fault.line).filter(|line| *line > 0);
        let lines: Vec<usize> = lines.collect();
        if faults.0.is_empty() || lines != marked_lines(&text) {
            wrong.push_str(&format!("{name}: {lines:?}\n{text}\n{faults}\n\n"));
        }
        told.push_str(&format!("{name}\n{faults}\n\n"));
    }
    assert!(wrong.is_empty(), "faults are not where they are marked\n{wrong}");
    assert!(faulty::CASES.len() >= 40);
    insta::assert_snapshot!("faults", told);
}

#[test]
fn a_dozen_faults_are_told_at_once() {
    let text = faulty::complete(faulty::A_DOZEN);
    let faults = faults(&text);
    assert_eq!(faults.0.len(), 12, "{faults}");
    let lines: Vec<usize> = faults.0.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, marked_lines(&text), "{faults}");
    insta::assert_snapshot!("a_dozen", faults);
}

#[test]
fn what_a_reference_gives_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "S3cret-Hunter2-do-not-show";
    std::fs::write(folder.path().join("secret"), format!("{secret}\n")).unwrap();
    let mut refused = 0;
    for text in faulty::WITH_SECRETS {
        let path = folder.path().join("standin.toml");
        std::fs::write(&path, faulty::complete(text)).unwrap();
        let shown = match Config::load(&path) {
            Err(faults) => {
                refused += 1;
                format!("{faults}\n{faults:?}")
            }
            Ok(config) => {
                let report = standin::cli::check::check(&config);
                let json = serde_json::to_string(&report).unwrap();
                format!("{report}\n{json}\n{:?}\n{:?}", config, config.warnings())
            }
        };
        for part in [secret, "Hunter2", "hunter2", "S3cret"] {
            assert!(!shown.contains(part), "{part} is shown for\n{text}\n{shown}");
        }
    }
    assert!(refused >= 12, "only {refused} of these were refused");
}

#[test]
fn a_file_reference_gives_the_content_without_its_last_newline() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "0123456789abcdef\n").unwrap();
    let text = "[admin]\ntoken = \"${file:token}\"\n";
    let path = folder.path().join("standin.toml");
    std::fs::write(&path, faulty::complete(text)).unwrap();
    let config = Config::load(&path).unwrap();
    assert_eq!(config.admin.token.unwrap().0, "0123456789abcdef");
}

#[test]
fn a_file_that_is_no_configuration_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let load = |bytes: &[u8]| {
        let path = folder.path().join("standin.toml");
        std::fs::write(&path, bytes).unwrap();
        Config::load(&path).unwrap_err().to_string()
    };
    assert!(
        load(b"role = \"inline\"\ndrain = \"\xff\"\n").contains("standin.toml:2:1: is not UTF-8")
    );
    assert!(load(&vec![b'#'; 5 << 20]).contains("larger than 4MiB"));
    assert!(load(b"").contains("there is no app"));
    assert!(Config::load(folder.path()).unwrap_err().to_string().contains("cannot read"));
    assert!(
        Config::load(&folder.path().join("none")).unwrap_err().to_string().contains("cannot read")
    );
}

#[test]
fn nonsense_is_refused_without_a_panic() {
    let good = include_str!("../deploy/standin.toml");
    let bytes = good.as_bytes();
    // Cut anywhere, and with one character replaced: a fault or a configuration, never a panic.
    for at in (0..bytes.len()).step_by(601) {
        if let Some(cut) = good.get(..at) {
            Config::parse(cut, "cut.toml").ok();
        }
        for wrong in ["\"", "[", "{", "=", "\u{0}", "${", "é"] {
            let (Some(before), Some(after)) = (good.get(..at), good.get(at + 1..)) else {
                continue;
            };
            Config::parse(&format!("{before}{wrong}{after}"), "wrong.toml").ok();
        }
    }
    let deep = format!("x = {}1{}", "[".repeat(2000), "]".repeat(2000));
    assert!(!faults(&deep).0.is_empty());
    let many: String = (0..100_000).map(|at| format!("key{at} = 1\n")).collect();
    let many = faults(&many).0;
    assert_eq!(many.len(), 201);
    assert!(many[200].message.contains("99800 more faults"), "{}", many[200]);
}

#[test]
fn one_upstream_needs_no_file() {
    let listen = "127.0.0.1:8080".parse().unwrap();
    let config = Config::for_one_upstream(listen, "http://127.0.0.1:3000").unwrap();
    assert_eq!(config.default_upstream().unwrap().1.endpoints, ["http://127.0.0.1:3000"]);
    let refused = |upstream| Config::for_one_upstream(listen, upstream).unwrap_err().to_string();
    assert!(refused("127.0.0.1:3000").starts_with("command line: "));
    assert!(refused("http://127.0.0.1:8080").contains("standin's own address"));
    assert!(!refused("http://me:Hunter2@127.0.0.1:3000").contains("Hunter2"));
}

#[test]
fn check_tells_what_each_route_will_do() {
    let config = Config::parse(faulty::FOR_CHECK, "standin.toml").unwrap();
    let report = standin::cli::check::check(&config);
    insta::assert_snapshot!("check", report);
    insta::assert_snapshot!("check_json", serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn check_tells_a_standby_from_a_proxy_in_front() {
    let text = format!("role = \"standby\"\n{}", faulty::complete(faulty::PROTECTED));
    let config = Config::parse(&text, "standin.toml").unwrap();
    let report = standin::cli::check::check(&config).to_string();
    assert!(report.contains("stands in on: every request"), "{report}");
    assert!(report.contains("Everything else gets an honest error"), "{report}");
}

#[test]
fn the_example_is_valid_as_it_stands() {
    let config = Config::load(Path::new("deploy/standin.toml")).unwrap();
    assert_eq!(config.warnings(), []);
    assert!(config.route["checkout"].stand_in.is_some());
}
