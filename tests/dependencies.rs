//! Known faults of dependencies: no package of Cargo.lock is older than the version that mended it. `cargo deny` asks
//! the advisory database, where it is installed and the network is there; this asks nobody, in every run.

use std::collections::HashSet;

/// A package, the first version without the fault, and what the fault was.
const FLOORS: &[(&str, [u64; 3], &str)] = &[
    ("h2", [0, 4, 20], "floods of empty DATA frames and of large header lists"),
    ("hyper", [1, 12, 0], "limits on chunk extensions and on heads that come slowly"),
    ("bytes", [1, 11, 1], "an overflow when a buffer is reserved"),
    ("rustls", [0, 23, 40], "advisories of its 0.23 line"),
    ("rustls-webpki", [0, 103, 13], "name constraints and revocation lists"),
    ("aws-lc-sys", [0, 39, 0], "five advisories of 2026"),
    ("tokio", [1, 54, 1], "1.54.0 was withdrawn"),
];

/// Without these the list above would hold nothing.
const PRESENT: &[&str] = &["h2", "hyper", "bytes", "tokio"];

#[test]
fn no_dependency_is_older_than_the_version_that_mended_it() {
    let locked = packages(include_str!("../Cargo.lock"));
    let old = below_the_floor(&locked);
    assert!(old.is_empty(), "{old:#?}");
    let names: HashSet<&str> = locked.iter().map(|(name, _)| &**name).collect();
    for name in PRESENT {
        assert!(names.contains(name), "{name} is not in Cargo.lock: is the list still right?");
    }
}

#[test]
fn an_old_version_is_seen_also_beside_a_new_one() {
    let lock = r#"
        [[package]]
        name = "h2"
        version = "0.4.20"

        [[package]]
        name = "h2"
        version = "0.4.19"

        [[package]]
        name = "hyper"
        version = "1.9.3"

        [[package]]
        name = "bytes"
        version = "1.11.1-rc.1"

        [[package]]
        name = "tokio"
        version = "2.0.0+something"
    "#;
    let old: Vec<String> = below_the_floor(&packages(lock));
    let names: Vec<&str> = old.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["h2 0.4.19", "hyper 1.9.3", "bytes 1.11.1-rc.1"]);
}

/// Name and version of each package.
fn packages(lock: &str) -> Vec<(String, String)> {
    let lock: toml::Table = lock.parse().unwrap();
    let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
    let packages = lock["package"].as_array().unwrap();
    packages.iter().map(|package| (text(package, "name"), text(package, "version"))).collect()
}

fn below_the_floor(packages: &[(String, String)]) -> Vec<String> {
    let mut old = Vec::new();
    for (name, version) in packages {
        for (_, floor, fault) in FLOORS.iter().filter(|(floored, ..)| floored == name) {
            if order(version) < (*floor, true) {
                let [major, minor, patch] = floor;
                old.push(format!("{name} {version}: {major}.{minor}.{patch} or later ({fault})"));
            }
        }
    }
    old
}

/// What is to be compared: the three numbers, and whether it is a release (a pre-release comes before it).
fn order(version: &str) -> ([u64; 3], bool) {
    let version = version.split('+').next().unwrap();
    let (numbers, release) = match version.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (version, true),
    };
    let mut parts = numbers.split('.').map(|part| part.parse().unwrap());
    ([(); 3].map(|()| parts.next().unwrap()), release)
}
