//! Black-box tests, one binary: real sockets, real files, real processes.

#![allow(unreachable_pub, reason = "a test binary has no users")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod backups;
mod between;
mod breakers;
mod bulkheads;
mod cli;
mod config;
mod dedupe;
mod demo;
mod dependencies;
mod deploy;
mod drain;
mod durability;
mod egress;
mod failover;
mod fidelity;
mod filter_order;
mod framing;
mod headers;
mod ledger;
mod limits;
mod names;
mod pass_through;
mod promises;
mod records;
mod reload;
mod replay;
mod shop;
mod stand_in;
mod standby;
mod stops;
mod store;
mod support;
mod tls;
mod upstream_connections;
mod upstreams;
mod veto;
mod watch;

/// `autotests` is off, so that a file nobody lists would silently not run.
#[test]
fn every_file_here_is_listed() {
    let listed = include_str!("main.rs");
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    for entry in std::fs::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(listed.contains(&format!("\nmod {module};")), "tests/{name} is not listed");
        }
    }
}
