//! Disks that fail: full, with an fsync that returns an error, cut off from power. Nothing acknowledged is lost,
//! nothing is applied twice, and what cannot be kept is refused honestly.

mod power_cut;
mod small_disk;

use std::{collections::BTreeMap, time::Duration};

use http::{Method, StatusCode};

use self::{
    power_cut::{Recording, Survivors},
    small_disk::SmallDisk,
};
use crate::support::{
    Answer, App, Client, Standin, damage, empty_the_log, eventually, orders_config,
};

#[tokio::test]
async fn a_full_disk_means_an_honest_no_until_there_is_room_again() {
    let mut app = App::start().await;
    let disk = SmallDisk::mount("8m").await;
    let config = format!(
        "{}\n[store]\npath = \"{}/standin.db\"\nephemeral = \"accept_loss\"\n",
        orders_config(app.address()),
        disk.inside().display()
    );
    let standin = Standin::with(&config).under(disk.enter()).start().await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;

    let mut accepted = Vec::new();
    for number in 0..20 {
        accepted.push(accepted_order(&standin, &format!("before-{number}")).await);
    }
    disk.fill();
    let refused = eventually(LIMIT, async || {
        let body = format!("full-{}-{}", accepted.len(), "x".repeat(100_000));
        let answer = standin.post("/orders", body.clone()).await;
        if answer.status == StatusCode::CREATED {
            accepted.push(body);
            return None;
        }
        Some(answer)
    })
    .await;
    assert_honest(&refused);

    app.restart().await;
    eventually(LIMIT, async || standin.get("/").await.status == 200).await;
    let live = eventually(LIMIT, async || {
        let answer = standin.post("/orders", "live, with a full disk").await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    assert!(!stood_in(&live), "{live:?}");
    let readiness = standin.admin_get("/readyz").await;
    assert_eq!(readiness.status, 200, "it can forward: {}", readiness.text());

    disk.free();
    app.stop().await;
    let again = eventually(LIMIT, async || {
        let body = format!("after-{}", accepted.len());
        let answer = standin.post("/orders", body.clone()).await;
        (answer.status == 201).then_some(body)
    })
    .await;
    accepted.push(again);
    app.restart().await;
    each_arrives_once(&app, &accepted).await;
}

#[tokio::test]
async fn damage_that_is_found_later_ends_promises_and_leaves_the_file_as_it_is() {
    let mut app = App::start().await;
    let setup = Standin::with(&orders_config(app.address()));
    let mut standin = setup.arg("--check-store-every").arg("100").start().await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    let mut client = Client::to(standin.address());
    for number in 0..200 {
        let order = format!("{number}-{}", "x".repeat(4000));
        let order = http::Request::post("/orders").body(order.into()).unwrap();
        assert_eq!(client.send(order).await.unwrap().status, 201);
    }
    assert_eq!(standin.metrics().await.sum("standin_store_damaged", &[]), 0.0);
    empty_the_log(&standin.database()).await;
    let bytes = damage(&standin.database());

    let status = eventually(LIMIT, async || {
        let status = standin.admin_get("/api/v1/status").await.json();
        if status["store"]["damaged"] == true { Ok(status) } else { Err(status["store"].clone()) }
    })
    .await;
    let sentence = &status["sentences"][0];
    assert_eq!(sentence["severity"], "alarm");
    let said = sentence["text"].as_str().unwrap();
    assert!(said.starts_with("No stand-ins and no replays") && said.contains("damaged"), "{said}");
    let metrics = standin.metrics().await;
    assert_eq!(metrics.sum("standin_store_damaged", &[]), 1.0);
    assert_eq!(metrics.sum("standin_store_accepting", &[]), 0.0);
    let readiness = standin.admin_get("/readyz").await;
    assert_eq!(readiness.status, 200, "it can forward");
    assert!(readiness.text().contains("damaged"), "{}", readiness.text());
    assert_honest(&standin.post("/orders", "one more").await);

    app.restart().await;
    let live = eventually(LIMIT, async || {
        let answer = standin.post("/orders", "live").await;
        (answer.status == 201).then_some(answer)
    })
    .await;
    assert!(!stood_in(&live), "{live:?}");
    app.receives(["live"]).await;
    standin.terminate();
    assert!(standin.ended(LIMIT).await.success());
    assert_eq!(std::fs::read(standin.database()).unwrap(), bytes);
    app.receives(["live"]).await;

    let standin = standin.restart().await;
    let status = standin.admin_get("/api/v1/status").await.json();
    assert_eq!(status["store"]["damaged"], true, "{status}");
}

/// strace makes some fsyncs fail, in the middle of orders; after them the disk is well again.
#[tokio::test]
async fn an_fsync_that_fails_acknowledges_nothing_and_standin_recovers() {
    let mut app = App::start().await;
    let inject = "inject=fdatasync,fsync:error=EIO:when=60..90";
    let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", inject];
    let standin = Standin::with(&orders_config(app.address())).under(strace).start().await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;

    let (mut accepted, mut refused) = (Vec::new(), 0);
    for number in 0..300 {
        let body = format!("order-{number}");
        let answer = standin.post("/orders", body.clone()).await;
        if answer.status == StatusCode::CREATED {
            accepted.push(body);
        } else {
            assert_honest(&answer);
            refused += 1;
        }
        if refused > 0 && accepted.len() > 150 {
            break;
        }
    }
    assert!(refused > 0, "no fsync ever failed: {} accepted", accepted.len());
    let body = "after the failures";
    eventually(LIMIT, async || standin.post("/orders", body).await.status == 201).await;

    app.restart().await;
    assert_eq!(eventually(LIMIT, async || standin.get("/").await.status == 200).await, ());
    // What was refused after its row was written may arrive too: nobody was told that it would not.
    each_arrives_once(&app, &accepted).await;
}

/// From some moment on every fsync fails, until a new process finds a good disk.
#[tokio::test]
async fn when_fsync_never_works_again_the_next_start_has_all_that_was_acknowledged() {
    let mut app = App::start().await;
    let inject = "inject=fdatasync,fsync:error=EIO:when=60+";
    let strace = ["strace", "-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", inject];
    let mut standin = Standin::with(&orders_config(app.address())).under(strace).start().await;
    assert_eq!(standin.get("/").await.status, 200);
    app.stop().await;
    let mut accepted = Vec::new();
    let mut refused = 0;
    while refused < 20 {
        let body = format!("order-{}-{refused}", accepted.len());
        let answer = standin.post("/orders", body.clone()).await;
        if answer.status == StatusCode::CREATED {
            assert_eq!(refused, 0, "accepted after a failed fsync");
            accepted.push(body);
            assert!(accepted.len() < 1000, "no fsync ever failed");
        } else {
            assert_honest(&answer);
            refused += 1;
        }
    }
    app.restart().await;
    eventually(LIMIT, async || standin.get("/").await.status == 200).await;
    app.stop().await;

    standin.kill();
    let standin = standin.restart().await;
    app.restart().await;
    each_arrives_once(&app, &accepted).await;
    drop(standin);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let recording = Recording::of_three_runs(&[]).await;
    assert!(recording.answers() >= 300, "{} answers", recording.answers());
    let survivors = recording.cut(300);
    assert_eq!(survivors.lost, 0, "{survivors:?}");
    assert_eq!(survivors.damaged, 0, "{survivors:?}");
    assert!(survivors.with_unsynced_writes > 20, "the cuts cut nothing: {survivors:?}");
    assert!(survivors.with_unsynced_names > 20, "no name was ever uncertain: {survivors:?}");
    println!("{survivors:?}");

    // And what a rebuilt disk holds is delivered by a standin that starts on it.
    let (folder, acknowledged) = recording.cut_once();
    let app = App::start().await;
    let _standin = Standin::with(&orders_config(app.address())).folder(folder.path()).start().await;
    eventually(LIMIT, async || {
        let seen = ids(&app);
        let missing = acknowledged.iter().filter(|id| !seen.contains_key(*id)).count();
        if missing == 0 {
            Ok(())
        } else {
            Err(format!("{missing} of {} missing", acknowledged.len()))
        }
    })
    .await;
    assert!(ids(&app).values().all(|times| *times == 1), "{:?}", ids(&app));

    // The method sees a name that nobody made certain.
    let Survivors { lost, .. } = recording.without_syncs_of_names().cut(50);
    assert!(lost > 0, "a folder that is never synced lost nothing: the test is blind");
}

/// The method can see a loss: without an fsync per commit there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_cuts_lose_orders_when_commits_are_not_synced() {
    let recording = Recording::of_three_runs(&["--synchronous-normal"]).await;
    let Survivors { lost, .. } = recording.cut(200);
    assert!(lost > 0, "synchronous=NORMAL lost nothing: the test is blind");
}

async fn accepted_order(standin: &Standin, body: &str) -> String {
    let answer = standin.post("/orders", body.to_owned()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert!(stood_in(&answer), "{answer:?}");
    body.to_owned()
}

fn stood_in(answer: &Answer) -> bool {
    answer.header("proxy-status").starts_with("standin")
}

fn assert_honest(answer: &Answer) {
    assert!(answer.status.is_server_error(), "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
}

/// Each of `bodies` reaches the app; nothing reaches it twice.
async fn each_arrives_once(app: &App, bodies: &[String]) {
    eventually(Duration::from_secs(30), async || {
        let seen = times(app);
        let missing: Vec<_> = bodies.iter().filter(|body| !seen.contains_key(*body)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let (missing, first) = (missing.len(), &missing[0][..missing[0].len().min(40)]);
        Err(format!("{missing} of {} have not arrived, {first} first", bodies.len()))
    })
    .await;
    let twice: Vec<_> = times(app).into_iter().filter(|(_, times)| *times > 1).collect();
    assert!(twice.is_empty(), "arrived more than once: {twice:?}");
}

fn times(app: &App) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for seen in app.seen_of(&Method::POST) {
        *times.entry(String::from_utf8_lossy(&seen.body).into_owned()).or_default() += 1;
    }
    times
}

fn ids(app: &App) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for seen in app.seen_of(&Method::POST) {
        let id = seen.headers.get("x-request-id").unwrap().to_str().unwrap();
        *ids.entry(id.to_owned()).or_default() += 1;
    }
    ids
}

/// Orders from eight clients, one after the other each; the order numbers of those that were accepted.
async fn load(standin: &Standin, orders_each: usize) -> Vec<String> {
    let address = standin.address();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        clients.spawn(async move {
            let mut accepted = Vec::new();
            let mut connection = Client::to(address);
            for order in 0..orders_each {
                let body = format!("{client}-{order}-{}", "x".repeat(700));
                let request = http::Request::post("/orders").body(body.into()).unwrap();
                let answer = connection.send(request).await.unwrap();
                assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                accepted.push(answer.json()["id"].as_str().unwrap().to_owned());
            }
            accepted
        });
    }
    clients.join_all().await.concat()
}

const LIMIT: Duration = Duration::from_secs(20);
