//! The commands that ask a running standin: their help, tables, JSON and exit codes.

use std::process::Output;

use serde_json::{Value, json};
use standin::{
    config::{AdminConfig, AdminToken, Role},
    store::{HeldReason, KeptAnswer},
};
use tokio::process::Command;

use crate::{
    admin::fixture::{Fixture, held},
    support::{App, Standin, eventually, orders_config},
};

/// Runs `standin` with arguments and a clean environment.
async fn standin(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standin"));
    command.args(arguments).env_clear().env("USER", "anna").envs(environment.iter().copied());
    command.output().await.unwrap()
}

/// Asks the listener of a fixture.
async fn ask(fixture: &Fixture, arguments: &[&str]) -> Output {
    let admin = format!("http://{}", fixture.address);
    standin(arguments, &[("STANDIN_ADMIN", &admin)]).await
}

/// What a command says of a running standin.
pub(crate) async fn asks(of: &Standin, arguments: &[&str]) -> String {
    let admin = format!("http://{}", of.admin_address());
    said(&standin(arguments, &[("STANDIN_ADMIN", &admin)]).await, 0)
}

#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Times and receipts differ from run to run; their shape does not.
fn steady(text: &str, receipts: &[&str]) -> String {
    let mut text = text.to_owned();
    for (n, receipt) in receipts.iter().enumerate() {
        text = text.replace(receipt, &format!("RCPT-000{n}"));
    }
    let mut steady = String::new();
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        let time = rest.get(..23).filter(|time| time.ends_with(" UTC") && time.starts_with("20"));
        if time.is_some_and(|time| time.as_bytes()[4] == b'-' && time.as_bytes()[13] == b':') {
            steady.push_str("2026-11-22 14:02:05 UTC");
            rest = &rest[23..];
        } else {
            steady.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    steady
}

#[tokio::test]
async fn help_is_as_it_was_agreed() {
    let mut help = String::new();
    for command in [
        "",
        "status",
        "entries",
        "entries list",
        "entries show",
        "entries replay",
        "entries hold",
        "entries release",
        "entries release-all",
        "entries write-off",
        "entries follow-up",
        "replay",
        "replay list",
        "replay start",
        "replay watch",
        "replay stop",
        "mode",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        help += &format!(
            "$ standin {}\n{}\n",
            arguments.join(" "),
            said(&standin(&arguments, &[]).await, 0)
        );
    }
    insta::assert_snapshot!("help", help);
}

#[tokio::test]
async fn tables_are_for_people() {
    let fixture = Fixture::start().await;
    let first = fixture.append(1, |_| {}).await.receipt().to_string();
    let second = fixture.append(2, held).await.receipt().to_string();
    let answer = KeptAnswer {
        status: 422,
        headers: vec![("content-type".into(), "text/plain".into())],
        body: "out of stock".into(),
    };
    let third = fixture.declined(3, answer).await.receipt().to_string();
    let receipts = [&*first, &second, &third];
    let list = said(&ask(&fixture, &["entries", "list"]).await, 0);
    insta::assert_snapshot!("entries_list", steady(&list, &receipts));
    let show = said(&ask(&fixture, &["entries", "show", &third]).await, 0);
    insta::assert_snapshot!("entries_show", steady(&show, &receipts));
    let status = said(&ask(&fixture, &["status"]).await, 0);
    let status: String = status
        .lines()
        .map(|line| if line.starts_with("store ") { "store …" } else { line })
        .map(|line| {
            format!("{}\n", line.strip_suffix(" 1 s").map_or(line.into(), |l| format!("{l} 0 s")))
        })
        .collect();
    insta::assert_snapshot!("status", status);
    let none = said(&ask(&fixture, &["entries", "list", "--search", "nothing"]).await, 0);
    assert_eq!(none, "No entries.\n");
    let page = said(&ask(&fixture, &["entries", "list", "--limit", "1"]).await, 0);
    assert!(page.contains("There are older ones: --before 3"), "{page}");
}

#[tokio::test]
async fn json_is_what_the_api_says() {
    let fixture = Fixture::start().await;
    let receipt = fixture.append(1, |_| {}).await.receipt().to_string();
    for (arguments, path) in [
        (vec!["entries", "list", "--json"], "/api/v1/entries"),
        (vec!["entries", "show", &receipt, "--json"], &*format!("/api/v1/entries/{receipt}")),
        (vec!["replay", "list", "--json"], "/api/v1/replay/runs"),
    ] {
        let printed: Value =
            serde_json::from_str(&said(&ask(&fixture, &arguments).await, 0)).unwrap();
        assert_eq!(printed, fixture.get(path).await.json(), "{path}");
    }
    let status: Value =
        serde_json::from_str(&said(&ask(&fixture, &["status", "--json"]).await, 0)).unwrap();
    assert_eq!(status["routes"][0]["name"], "checkout");
}

#[tokio::test]
async fn decisions_are_made_and_carry_the_name_of_who_made_them() {
    let fixture = Fixture::start().await;
    let receipt = fixture.append(1, |_| {}).await.receipt().to_string();
    let say = async |act: &[&str]| {
        let arguments = [act, &[&*receipt, "--reason", "on the phone"]].concat();
        ask(&fixture, &arguments).await
    };
    assert_eq!(
        said(&say(&["entries", "hold"]).await, 0),
        format!("{receipt} is held: by person now.\n")
    );
    let again = say(&["entries", "hold"]).await;
    said(&again, 1);
    assert!(complaint(&again).contains("the entry is held now"), "{}", complaint(&again));
    let release = say(&["entries", "release", "--extend", "2h"]).await;
    assert_eq!(said(&release, 0), format!("{receipt} is stored now.\n"));
    let run = said(&say(&["entries", "replay"]).await, 0);
    assert!(run.contains(&receipt), "{run}");
    let mode = ask(
        &fixture,
        &["mode", "forced", "--for", "30m", "--route", "checkout", "--reason", "moving"],
    )
    .await;
    let mode = said(&mode, 0);
    assert!(
        mode.contains("mode of checkout: forced until ") && mode.contains("by anna: moving"),
        "{mode}"
    );
    assert!(
        said(&ask(&fixture, &["status"]).await, 0)
            .starts_with("ALARM: checkout is forced to stand in")
    );
    said(&say(&["entries", "write-off"]).await, 0);
    let answer = KeptAnswer { status: 422, headers: vec![], body: "out of stock".into() };
    let declined = fixture.declined(2, answer).await.receipt().to_string();
    let follow_up = ["entries", "follow-up", &declined, "--reason", "called"];
    let followed_up = said(&ask(&fixture, &follow_up).await, 0);
    assert_eq!(followed_up, format!("{declined} is declined, followed up now.\n"));
    let open = ["entries", "list", "--outcome", "declined", "--followed-up", "no"];
    assert_eq!(said(&ask(&fixture, &open).await, 0), "No entries.\n");
    let audit = fixture.store.audit_log(20).await.unwrap();
    assert_eq!(audit.len(), 6, "{audit:?}");
    assert!(audit.iter().all(|line| line.who == "anna"), "{audit:?}");
}

#[tokio::test]
async fn many_are_released_at_once() {
    let fixture = Fixture::start().await;
    for n in 1..=3 {
        fixture.append(n, |entry| entry.held = Some(HeldReason::Credentials)).await;
    }
    fixture.append(4, |entry| entry.held = Some(HeldReason::Unclear)).await;
    let release = async |more: &[&str]| {
        let all = ["entries", "release-all", "--reason", "new token"];
        ask(&fixture, &[&all, more].concat()).await
    };
    let some = release(&["--held", "credentials", "--at-most", "2"]).await;
    assert_eq!(said(&some, 0), "2 entries are released. 1 is still held for this reason.\n");
    let rest = release(&["--held", "credentials", "--route", "checkout"]).await;
    assert_eq!(said(&rest, 0), "1 entry is released.\n");
    let no = release(&["--held", "unclear"]).await;
    said(&no, 1);
    assert!(complaint(&no).contains("release them one by one"), "{}", complaint(&no));
    said(&release(&[]).await, 2); // no word of what is held for what
}

#[tokio::test]
async fn exit_codes_say_what_kind_of_failure_it_was() {
    let token =
        AdminConfig { token: Some(AdminToken("open-sesame".into())), ..AdminConfig::default() };
    let fixture = Fixture::with(token, Role::Inline).await;
    let admin = format!("http://{}", fixture.address);
    let no = standin(&["status", "--admin", &admin], &[]).await;
    said(&no, 1);
    assert!(complaint(&no).contains("give --token or STANDIN_TOKEN"), "{}", complaint(&no));
    assert!(complaint(&no).contains("no token was sent"), "{}", complaint(&no));
    let wrong = standin(&["status", "--admin", &admin, "--token", "sesame"], &[]).await;
    said(&wrong, 1);
    assert!(complaint(&wrong).contains("wrong token"), "{}", complaint(&wrong));
    let opened = standin(&["status", "--admin", &admin], &[("STANDIN_TOKEN", "open-sesame")]).await;
    said(&opened, 0);
    said(&standin(&["status", "--admin", &admin, "--token", "open-sesame"], &[]).await, 0);

    said(&standin(&["entries", "hold", "X"], &[]).await, 2); // no reason
    said(&standin(&["mode", "odd", "--reason", "x"], &[]).await, 2);
    said(
        &standin(&["replay", "start", "--route", "a", "--entry", "b", "--reason", "x"], &[]).await,
        2,
    );
    said(&standin(&["status", "--admin", "https://localhost:1"], &[]).await, 2);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = standin(&["status", "--admin", &format!("http://{free}")], &[]).await;
    said(&nobody, 6);
    assert!(complaint(&nobody).contains("cannot reach the admin API"), "{}", complaint(&nobody));
}

#[tokio::test]
async fn a_word_or_number_that_there_is_not_is_told_with_those_that_there_are() {
    let fixture = Fixture::start().await;
    for (option, value, wanted) in [
        ("--state", "nonsense", "one of `stored`, `leased`, `sending`, `held`, `closed`"),
        ("--outcome", "lost", "one of `completed`, `already_applied`, `declined`, `written_off`"),
        ("--held", "why", "`by_person`"),
        ("--limit", "9999", "`limit` is a number from 1 to 200"),
    ] {
        let no = ask(&fixture, &["entries", "list", option, value]).await;
        said(&no, 1);
        assert!(complaint(&no).contains(wanted), "{}", complaint(&no));
    }
}

#[tokio::test]
async fn stored_bytes_do_not_drive_the_terminal() {
    let fixture = Fixture::start().await;
    let escape = "\u{1b}]0;owned\u{7}\u{202e}";
    let receipt = fixture
        .append(1, |entry| {
            entry.request.target = format!("/{escape}");
            entry.request.headers.push(("x-name".into(), escape.into()));
            entry.request.body = format!("{escape}\n{escape}").into();
            entry.labels = vec![(escape.into(), escape.into())];
            entry.identity.key_text = escape.into();
            entry.cause = escape.into();
        })
        .await
        .receipt()
        .to_string();
    let no = ask(&fixture, &["entries", "hold", escape, "--reason", escape]).await;
    said(&no, 1);
    assert!(!complaint(&no).contains(['\u{1b}', '\u{7}', '\u{202e}']));
    said(&ask(&fixture, &["entries", "hold", &receipt, "--reason", escape]).await, 0);
    for arguments in [vec!["entries", "list"], vec!["entries", "show", &receipt], vec!["status"]] {
        let out = said(&ask(&fixture, &arguments).await, 0);
        assert!(!out.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{out:?}");
    }
}

#[tokio::test]
async fn a_run_is_watched_to_its_end() {
    let mut app = App::start().await;
    // By hand, so that only the watched run sends.
    let by_hand = "[route.orders.replay]\ntrigger = \"manual\"";
    let config = orders_config(app.address()).replace("[route.orders.replay]", by_hand);
    let standin_under_test = Standin::start(&config).await;
    assert_eq!(standin_under_test.get("/").await.status, 200);
    let admin = format!("http://{}", standin_under_test.admin_address());
    let environment = [("STANDIN_ADMIN", &*admin)];
    let nothing = said(&standin(&["replay", "watch"], &environment).await, 0);
    assert_eq!(nothing, "No replay run goes on.\n");
    app.stop().await;
    eventually(std::time::Duration::from_secs(20), async || {
        standin_under_test.post("/orders", "1").await.status == 201
    })
    .await;
    let start = ["replay", "start", "--route", "orders", "--reason", "try", "--watch", "--json"];
    let watched = tokio::join!(standin(&start, &environment), async {
        eventually(std::time::Duration::from_secs(20), async || {
            let runs = standin_under_test.admin_get("/api/v1/replay/runs").await.json();
            runs["runs"] != json!([])
        })
        .await;
        app.restart().await;
    })
    .0;
    let lines: Vec<Value> =
        said(&watched, 0).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    assert_eq!((&last["state"], &last["completed"]), (&json!("done"), &json!(1)), "{lines:?}");
}
