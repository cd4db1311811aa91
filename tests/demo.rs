//! `standin demo` as a newcomer runs it, only shorter: it must tell its story to the end, and leave nothing behind.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::support::{Process, binary, eventually};

#[tokio::test]
async fn the_demo_shows_what_it_promises() {
    let mut demo = start(&["--seconds", "6"]);
    let files = demo.says("  files").await;
    let ended = demo.ended(LIMIT).await;
    let output = demo.whole_output();
    assert!(ended.success(), "{output}");
    let count = |name: &str| count(&output, name);
    assert!(count("answered by the shop  ") > 0);
    assert!(count("stood in  ") > 0);
    assert!(count("declined  ") > 0);
    assert!(count("replayed  ") > 0);
    assert_eq!(count("lost  "), 0);
    assert_eq!(count("doubled  "), 0);
    let sum = count("answered by the shop  ") + count("stood in  ") + count("declined  ");
    assert_eq!(count("sent  "), sum);
    assert!(!std::path::Path::new(&files).exists(), "{files} is left behind");
}

/// The shop dies with orders that it has applied and not answered.
const SLOW: [&str; 4] = ["--seconds", "5", "--shop-answers-after-ms", "250"];

#[tokio::test]
async fn the_demo_is_well_because_the_shop_refuses_duplicates() {
    let mut demo = start(&SLOW);
    let ended = demo.ended(LIMIT).await;
    let output = demo.whole_output();
    assert!(ended.success(), "{output}");
    assert_eq!((count(&output, "lost  "), count(&output, "doubled  ")), (0, 0));
}

#[tokio::test]
async fn the_demo_fails_if_an_order_is_doubled() {
    let mut demo = start(&[&SLOW[..], &["--shop-dedupe", "none"]].concat());
    let files = demo.says("  files").await;
    let ended = demo.ended(LIMIT).await;
    let output = demo.whole_output();
    assert_eq!(ended.code(), Some(1), "{output}");
    assert!(count(&output, "doubled  ") > 0, "{output}");
    assert_eq!(count(&output, "lost  "), 0, "{output}");
    assert!(output.contains("orders are doubled"), "{output}");
    assert!(!output.contains("exactly once"), "{output}");
    // Its files are left for a look.
    std::fs::remove_dir_all(&files).unwrap();
}

#[tokio::test]
async fn a_demo_that_is_stopped_ends_its_children_and_removes_its_files() {
    let mut demo = start(&["--keep"]);
    let shop = pid_in(&demo.says("  the shop").await);
    let standin = pid_in(&demo.says("  standin  ").await);
    let files = demo.says("  files").await;
    kill_process(Pid::from_raw(demo.pid().cast_signed()).unwrap(), Signal::INT).unwrap();
    demo.ended(LIMIT).await;
    for child in [shop, standin] {
        eventually(LIMIT, async || test_kill_process(child).is_err()).await;
    }
    assert!(!std::path::Path::new(&files).exists(), "{files} is left behind");
}

/// The number beside a line's name.
fn count(output: &str, name: &str) -> u64 {
    let line = output.lines().find_map(|line| line.trim().strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no line `{name}` in:\n{output}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn start(arguments: &[&str]) -> Process {
    Process::spawn("the demo", Command::new(binary()).arg("demo").args(arguments))
}

fn pid_in(line: &str) -> Pid {
    let (_, pid) = line.rsplit_once(' ').unwrap();
    Pid::from_raw(pid.parse().unwrap()).unwrap()
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(40);
