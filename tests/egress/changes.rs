//! Who is in the pool: what people and the list that is followed say, and that it holds after a restart.

use http::Response;

use super::*;

/// Which proxies take `POST /orders` now.
async fn in_turn(standin: &Standin, app: &App, requests: usize) -> Vec<String> {
    app.forget();
    for order in 0..requests {
        assert_eq!(standin.post("/orders", order.to_string()).await.status, 201);
    }
    shares(app).into_keys().collect()
}

async fn audit(standin: &Standin) -> Vec<String> {
    let lines = standin.admin_get("/api/v1/audit").await.json();
    let line =
        |line: &Value| format!("{} {} {}", line["who"], line["what"], line["on"]).replace('"', "");
    lines.as_array().unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn what_people_say_is_written_down_and_holds_after_a_restart() {
    let app = App::start().await;
    let ways = proxies(["one", "two", "three", "four"]).await;
    let secret = Tinyproxy::with("secret", "BasicAuth anna Hunter2pw").await;
    let mut standin = Standin::start(&config(&app, &urls(&ways), "", "", "")).await;
    standin.change_proxy("one", "retire", json!({})).await;
    standin.change_proxy("two", "drain", json!({})).await;
    standin.change_proxy("three", "cool", json!({ "for": "1h" })).await;
    let url = secret.bare_url().replace("http://", "http://anna:Hunter2pw@");
    let add = json!({ "url": url, "reason": "one more" });
    let added = standin.admin_post("/api/v1/egress/ways/add", &add).await;
    assert!(added.status == 200 && !added.text().contains("Hunter2pw"), "{}", added.text());
    for round in 0..2 {
        let states = |pool: Value| {
            let proxies = pool["proxies"].as_array().unwrap().clone();
            let state =
                |proxy: &Value| format!("{} {}", proxy["name"], proxy["state"]).replace('"', "");
            proxies.iter().map(state).collect::<Vec<_>>()
        };
        let expected =
            ["two draining", "three cooling", "four active", "secret active", "one retired"];
        assert_eq!(states(standin.pool().await), expected, "round {round}");
        assert_eq!(in_turn(&standin, &app, 4).await, ["four", "secret"]);
        let shown = [
            standin.pool().await.to_string(),
            standin.admin_get("/egress").await.text(),
            standin.admin_get("/api/v1/audit").await.text(),
            standin.output(),
        ];
        assert!(shown.iter().all(|text| !text.contains("Hunter2pw")));
        if round == 0 {
            standin.kill();
            standin = standin.restart().await;
        }
    }
    let audit = audit(&standin).await;
    for line in ["retire ways one", "drain ways two", "cool ways three", "add ways secret"] {
        assert!(audit.contains(&format!("local egress {line}")), "{audit:?}");
    }
    // Retired is for good: only a new one may come.
    let why = json!({ "reason": "no" });
    assert_eq!(standin.admin_post("/api/v1/egress/ways/one/activate", &why).await.status, 409);
    assert_eq!(
        standin.admin_post("/api/v1/egress/ways/two/activate", &json!({})).await.status,
        422
    );
    let no_reason = json!({ "reason": " " });
    assert_eq!(standin.admin_post("/api/v1/egress/ways/two/retire", &no_reason).await.status, 422);
    standin.change_proxy("two", "activate", json!({})).await;
    standin.change_proxy("three", "activate", json!({})).await;
    let again = json!({ "url": ways[0].bare_url(), "reason": "mended" });
    assert_eq!(standin.admin_post("/api/v1/egress/ways/add", &again).await.status, 200);
    assert_eq!(standin.admin_post("/api/v1/egress/ways/add", &again).await.status, 409);
    assert_eq!(in_turn(&standin, &app, 5).await, ["four", "one", "secret", "three", "two"]);
    // A late word about the one that was does not touch the one that is.
    let late = json!({ "generation": 1, "reason": "late" });
    assert_eq!(standin.admin_post("/api/v1/egress/ways/one/retire", &late).await.status, 409);
    assert_eq!(standin.admin_post("/api/v1/egress/none/add", &again).await.status, 404);
    assert_eq!(standin.admin_post("/api/v1/egress/ways/none/drain", &why).await.status, 404);
}

#[tokio::test]
async fn a_list_is_followed_whole_or_not_at_all() {
    let app = App::start().await;
    let ways = proxies(["one", "two", "three", "four"]).await;
    let pool = "source = \"file:{folder}/ways.txt\"\nsync_every = \"20ms\"";
    let folder = crate::support::folder();
    let list = |text: String| {
        // In one step, as a list is to be replaced.
        let (new, file) = (folder.path().join("new"), folder.path().join("ways.txt"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, file).unwrap();
    };
    let lines = |which: &[usize]| {
        which.iter().map(|at| format!("{}\n", ways[*at].bare_url())).collect::<String>()
    };
    list(lines(&[1, 2]));
    let config = config(&app, &[ways[0].url()], pool, "", "");
    let standin = Standin::with(&config).folder(folder.path()).start().await;
    assert_eq!(in_turn(&standin, &app, 6).await, ["one", "three", "two"]);
    // Gone from the list is gone for good, until the list has it again.
    list(lines(&[2, 3]));
    let retired = async |name: &str| standin.proxy(name).await["state"] == "retired";
    eventually(SOON, async || retired("two").await).await;
    assert_eq!(in_turn(&standin, &app, 6).await, ["four", "one", "three"]);
    // One fault, and nothing of it is taken.
    list(format!("{}http://anna:Hunter2pw@nowhere\n", lines(&[1])));
    let fault = eventually(SOON, async || {
        let pool = standin.pool().await;
        pool["source"]["fault"].as_str().map(str::to_owned)
    })
    .await;
    assert!(fault.contains("proxy 2") && !fault.contains("Hunter2pw"), "{fault}");
    assert_eq!(in_turn(&standin, &app, 6).await, ["four", "one", "three"]);
    list(String::new());
    eventually(SOON, async || standin.pool().await["source"]["fault"] == "it is empty").await;
    assert_eq!(in_turn(&standin, &app, 6).await, ["four", "one", "three"]);
    assert_eq!(standin.metrics().await.sum("standin_egress_list_taken", &[]), 0.0);
    // What a person retired no list brings back.
    standin.change_proxy("four", "retire", json!({})).await;
    list(lines(&[1, 2, 3]));
    eventually(SOON, async || standin.proxy("two").await["state"] == "active").await;
    assert_eq!(in_turn(&standin, &app, 6).await, ["one", "three", "two"]);
    assert!(retired("four").await);
    // The list says who is to finish.
    let json = format!(
        "[{:?}, {{ \"url\": {:?}, \"state\": \"draining\" }}]",
        ways[1].bare_url(),
        ways[2].bare_url()
    );
    list(json);
    eventually(SOON, async || standin.proxy("three").await["state"] == "draining").await;
    assert_eq!(in_turn(&standin, &app, 4).await, ["one", "two"]);
}

#[tokio::test]
async fn a_list_is_followed_at_an_address() {
    let (app, truth) = (App::start().await, App::start().await);
    let ways = proxies(["one", "two", "three"]).await;
    let listed = Arc::new(std::sync::Mutex::new(ways[0].bare_url()));
    let asked = Arc::clone(&listed);
    truth.answer_with(move |_| Response::new(asked.lock().unwrap().clone().into()));
    let pool = format!("source = \"http://{}/ways?of=us\"\nsync_every = \"20ms\"", truth.address());
    let standin = Standin::start(&config(&app, &[], &pool, "", "")).await;
    // Known before the first request.
    assert_eq!(in_turn(&standin, &app, 3).await, ["one"]);
    assert_eq!(truth.seen()[0].target, "/ways?of=us");
    *listed.lock().unwrap() = format!("{}\n{}", ways[1].bare_url(), ways[2].bare_url());
    eventually(SOON, async || standin.proxy("one").await["state"] == "retired").await;
    assert_eq!(in_turn(&standin, &app, 4).await, ["three", "two"]);
    truth.behave(crate::support::Behaviour::Status(http::StatusCode::NOT_FOUND));
    eventually(SOON, async || standin.pool().await["source"]["fault"] == "it answered 404").await;
    assert_eq!(in_turn(&standin, &app, 4).await, ["three", "two"]);
}

#[tokio::test]
async fn whoever_has_no_pool_sees_nothing_of_it() {
    let (standin, _app) = crate::support::pair().await;
    for path in ["/", "/metrics", "/api/v1/status"] {
        let shown = standin.admin_get(path).await.text();
        for trace in ["\"/egress\"", "standin_egress", "\"egress\""] {
            assert!(!shown.contains(trace), "{path}: {shown}");
        }
    }
    assert_eq!(standin.admin_get("/api/v1/egress").await.json(), json!({ "pools": [] }));
}
