//! The admin listener: who may come in, what it shows of hostile bytes and of secrets, what it changes and writes down.

pub mod fixture;
mod hostile;
mod release_all;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::json;
use standin::{
    admin,
    clocks::Reading,
    config::{AdminConfig, AdminToken, Role},
    record::Exchange,
    store::{Caps, Certainty, HeldReason, KeptAnswer, Seq},
    time::UnixMillis,
};
use tokio::net::TcpListener;

use self::fixture::{Fixture, get, held, post, request};
use crate::support::{Raw, eventually, pair};

const LIMIT: Duration = Duration::from_secs(20);

fn with_token() -> AdminConfig {
    AdminConfig {
        token: Some(AdminToken("a-token-of-some-length".into())),
        hosts: vec!["ops.example".into()],
        ..AdminConfig::default()
    }
}

#[tokio::test]
async fn without_the_token_nothing_is_shown_and_nothing_changed() {
    let fixture = Fixture::with(with_token(), Role::Inline).await;
    for path in
        ["/", "/entries", "/api/v1/status", "/metrics", "/healthz", "/assets/page.css", "/nowhere"]
    {
        let answer = fixture.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header("www-authenticate").starts_with("Basic"), "{path}");
    }
    let set = json!({"mode": "forced", "reason": "x"});
    assert_eq!(fixture.post("/api/v1/mode", &set).await.status, 401);
    // A name without a password is no wrong token either, however often it comes.
    for authorization in [None, Some("Basic YW5uYTo="), Some("Bearer ")].repeat(5) {
        let mut request = get("/api/v1/status");
        if let Some(authorization) = authorization {
            let value = HeaderValue::from_static(authorization);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = fixture.send(request).await;
        assert_eq!(answer.status, 401, "{authorization:?}");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains("no token was sent"), "{authorization:?}: {detail}");
    }
    assert!(fixture.store.audit_log(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_token_opens_as_bearer_and_as_password_and_the_user_name_is_audited() {
    let fixture = Fixture::with(with_token(), Role::Inline).await;
    let with = |authorization: &'static str| {
        let mut request =
            post("/api/v1/mode", &json!({"mode": "pass_through", "reason": "moving house"}));
        request
            .headers_mut()
            .insert(header::AUTHORIZATION, HeaderValue::from_static(authorization));
        request
    };
    assert_eq!(fixture.send(with("Bearer a-token-of-some-length")).await.status, 200);
    // anna:a-token-of-some-length
    assert_eq!(fixture.send(with("Basic YW5uYTphLXRva2VuLW9mLXNvbWUtbGVuZ3Ro")).await.status, 200);
    assert_eq!(fixture.send(with("Bearer a-token-of-some-lengtH")).await.status, 401);
    let who: Vec<String> =
        fixture.store.audit_log(10).await.unwrap().into_iter().map(|line| line.who).collect();
    assert_eq!(who, ["anna", "token"]);
}

#[tokio::test]
async fn who_guesses_tokens_must_wait() {
    let fixture = Fixture::with(with_token(), Role::Inline).await;
    let mut guess = get("/api/v1/status");
    guess.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer guess"));
    for _ in 0..10 {
        assert_eq!(fixture.send(guess.clone()).await.status, 401);
    }
    assert_eq!(fixture.send(guess).await.status, 429);
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_token() {
    let fixture = Fixture::start().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let handles = fixture.handles();
    let refused = admin::serve(listener, handles, AdminConfig::default(), std::future::pending());
    let refused = tokio::time::timeout(LIMIT, refused).await.unwrap();
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_whatever_it_resolves_to() {
    let config = AdminConfig { hosts: vec!["ops.example".into()], ..AdminConfig::default() };
    let fixture = Fixture::with(config, Role::Inline).await;
    for (host, status) in [
        ("localhost:9900", 200),
        ("127.0.0.1", 200),
        ("ops.example", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("user@localhost", 421),
    ] {
        let mut request = get("/api/v1/status");
        request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
        assert_eq!(fixture.send(request).await.status, status, "{host}");
    }
    let none =
        crate::support::raw(fixture.address, "GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
    assert!(none.starts_with("HTTP/1.1 421"), "{none}");
    let two = "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let two = crate::support::raw(fixture.address, two).await;
    assert!(two.starts_with("HTTP/1.1 4"), "{two}");
}

#[tokio::test]
async fn another_site_changes_nothing() {
    let fixture = Fixture::start().await;
    let set = json!({"mode": "forced", "reason": "x"});
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let mut request = post("/api/v1/mode", &set);
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        assert_eq!(fixture.send(request).await.status, 403, "{name}: {value}");
    }
    // What a form on a foreign page can send without asking first.
    let mut simple = post("/api/v1/mode", &set);
    simple.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(fixture.send(simple).await.status, 415);
    assert!(fixture.store.audit_log(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn nothing_changes_by_get() {
    let fixture = Fixture::start().await;
    let id = fixture.append(1, |_| {}).await.receipt();
    for path in [
        format!("/api/v1/entries/{id}/hold"),
        format!("/api/v1/entries/{id}/write-off"),
        "/api/v1/replay/runs/x/stop".into(),
    ] {
        assert_eq!(fixture.get(&path).await.status, 405, "{path}");
    }
    for path in ["hold", "write-off", "replay"] {
        let page = fixture.get(&format!("/entries/{id}/{path}?reason=x")).await;
        assert_eq!(page.status, 200, "a page that asks");
    }
    fixture.get("/mode?mode=forced&reason=x").await;
    fixture.get("/replay/start?reason=x").await;
    assert!(fixture.store.audit_log(10).await.unwrap().is_empty());
    assert!(fixture.replay.runs().is_empty());
}

/// A misspelled `route` is not "all routes".
#[tokio::test]
async fn a_change_with_a_word_that_is_not_known_changes_nothing() {
    let fixture = Fixture::start().await;
    let stored = fixture.append(1, |_| {}).await.receipt();
    let held = fixture.append(2, held).await.receipt();
    for (path, body) in [
        ("/mode".to_owned(), json!({"mode": "forced", "rout": "checkout"})),
        ("/replay/runs".into(), json!({"Route": "checkout"})),
        (format!("/entries/{held}/release"), json!({"expand": "24h"})),
        (format!("/entries/{stored}/hold"), json!({"for": "1h"})),
    ] {
        let mut body = body.clone();
        body["reason"] = "a test".into();
        let answer = fixture.post(&format!("/api/v1{path}"), &body).await;
        assert_eq!(answer.status, 422, "{path} {}", answer.text());
    }
    let modes = fixture.get("/api/v1/mode").await.json();
    assert_eq!(modes, json!({ "routes": {} }));
    let runs = fixture.get("/api/v1/replay/runs").await.json();
    assert_eq!(runs["runs"], json!([]), "{runs}");
    for (receipt, state) in [(stored, "stored"), (held, "held")] {
        let entry = fixture.get(&format!("/api/v1/entries/{receipt}")).await.json();
        assert_eq!(entry["state"], state, "{entry}");
    }
}

#[tokio::test]
async fn every_change_needs_a_reason() {
    let fixture = Fixture::start().await;
    let stored = fixture.append(1, |_| {}).await.receipt();
    let held = fixture.append(2, held).await.receipt();
    let changes = [
        ("/mode".to_owned(), json!({"mode": "forced"})),
        (format!("/entries/{stored}/replay"), json!({})),
        (format!("/entries/{stored}/hold"), json!({})),
        (format!("/entries/{held}/release"), json!({})),
        (format!("/entries/{held}/write-off"), json!({})),
        (format!("/entries/{held}/follow-up"), json!({})),
        ("/replay/runs".into(), json!({"route": "checkout"})),
        ("/replay/runs/x/stop".into(), json!({})),
    ];
    for (path, body) in changes {
        for reason in [None, Some(String::new()), Some(" \n\t ".into()), Some("x".repeat(501))] {
            let mut body = body.clone();
            if let Some(reason) = reason {
                body["reason"] = reason.into();
            }
            let answer = fixture.post(&format!("/api/v1{path}"), &body).await;
            assert_eq!(answer.status, 422, "{path} {}", answer.text());
            assert_eq!(answer.header("content-type"), "application/problem+json");
        }
    }
    for (path, fields) in [
        ("/mode".to_owned(), vec![("mode", "forced")]),
        (format!("/entries/{stored}/hold"), vec![]),
        (format!("/entries/{held}/write-off"), vec![("reason", " ")]),
        ("/replay/start".into(), vec![("scope", "")]),
    ] {
        assert_eq!(fixture.form(&path, &fields).await.status, 422, "{path}");
    }
    assert!(fixture.store.audit_log(10).await.unwrap().is_empty());
    assert!(fixture.replay.runs().is_empty());
}

#[tokio::test]
async fn an_entry_is_held_released_and_written_off_with_who_and_why() {
    let fixture = Fixture::start().await;
    let id = fixture.append(1, |_| {}).await.receipt().to_string();
    let act = async |act: &str, reason: &str| {
        fixture.post(&format!("/api/v1/entries/{id}/{act}"), &json!({"reason": reason})).await
    };
    assert_eq!(act("hold", "stock is checked").await.json()["held"], "by_person");
    assert_eq!(act("hold", "again").await.status, 409, "it is held already");
    assert_eq!(act("replay", "now").await.status, 409, "it must be released first");
    assert_eq!(act("release", "there is stock").await.json()["state"], "stored");
    // Without hyphen and in lower case, as it is heard on the phone.
    let heard = id.replace('-', "").to_lowercase();
    let path = format!("/api/v1/entries/{heard}/write-off");
    let written_off =
        fixture.post(&path, &json!({"reason": "the customer changed their mind"})).await;
    assert_eq!(written_off.json()["outcome"], "written_off");
    assert_eq!(act("release", "no, wait").await.status, 409, "closed is closed");

    let history = fixture.get(&format!("/api/v1/entries/{id}/history")).await.json();
    let lines: Vec<(&str, &str)> = history
        .as_array()
        .unwrap()
        .iter()
        .skip(1)
        .map(|line| (line["who"].as_str().unwrap(), line["why"].as_str().unwrap()))
        .collect();
    assert_eq!(
        lines,
        [
            ("local", "stock is checked"),
            ("local", "there is stock"),
            ("local", "the customer changed their mind"),
        ]
    );
    let audit = fixture.get("/api/v1/audit").await.json();
    assert_eq!(audit.as_array().unwrap().len(), 3, "{audit}");
    assert_eq!(audit[0]["why"], "the customer changed their mind");
}

#[tokio::test]
async fn the_page_does_the_same_in_two_steps() {
    let fixture = Fixture::start().await;
    let id = fixture.append(1, |_| {}).await.receipt().to_string();
    let page = fixture.get(&format!("/entries/{id}")).await.text();
    assert!(page.contains(&format!("href=\"/entries/{id}/hold\"")));
    let ask = fixture.get(&format!("/entries/{id}/hold")).await.text();
    assert!(ask.contains(&format!("action=\"/entries/{id}/hold\" method=\"post\"")));
    let done = fixture.form(&format!("/entries/{id}/hold"), &[("reason", "stock")]).await;
    assert_eq!(
        (done.status.as_u16(), done.header("location")),
        (303, &*format!("/entries/{id}?done=hold"))
    );
    let page = fixture.get(done.header("location")).await.text();
    assert!(
        page.contains("held: by person") && page.contains("nothing is sent until it is released")
    );
    assert!(!page.contains(&format!("/entries/{id}/replay")), "held entries are not replayed");
    assert_eq!(fixture.form(&format!("/entries/{id}/hold"), &[("reason", "x")]).await.status, 409);

    let done =
        fixture.form("/mode", &[("mode", "forced"), ("for", "30m"), ("reason", "moving")]).await;
    assert_eq!(done.header("location"), "/?done=mode");
    let page = fixture.get("/entries").await.text();
    assert!(page.contains("banner alarm") && page.contains("every route stands in until"));
    let done =
        fixture.form("/replay/start", &[("scope", "route checkout"), ("reason", "try")]).await;
    assert_eq!(done.header("location"), "/replay?done=start");
    assert_eq!(fixture.replay.runs().len(), 1);
}

#[tokio::test]
async fn forced_has_an_end_and_at_most_a_day() {
    let fixture = Fixture::start().await;
    let set = async |body: serde_json::Value| fixture.post("/api/v1/mode", &body).await;
    assert_eq!(set(json!({"mode": "forced", "for": "25h", "reason": "x"})).await.status, 400);
    assert_eq!(set(json!({"mode": "forced", "for": "soon", "reason": "x"})).await.status, 400);
    assert_eq!(set(json!({"mode": "auto", "for": "1h", "reason": "x"})).await.status, 400);
    assert_eq!(set(json!({"mode": "odd", "reason": "x"})).await.status, 422);
    assert_eq!(set(json!({"mode": "forced", "route": "none", "reason": "x"})).await.status, 404);
    let modes = set(json!({"mode": "forced", "route": "checkout", "reason": "database moves"}))
        .await
        .json();
    assert!(modes["routes"]["checkout"]["until"].is_string(), "{modes}");
    let status = fixture.get("/api/v1/status").await.json();
    assert_eq!(status["severity"], "alarm");
    assert!(status["sentences"][0]["text"].as_str().unwrap().contains("database moves"));
    assert_eq!(
        set(json!({"mode": "auto", "route": "checkout", "reason": "moved"})).await.status,
        200
    );
    assert_ne!(fixture.get("/api/v1/status").await.json()["severity"], "alarm");
}

#[tokio::test]
async fn pages_of_entries_show_each_once_and_search_finds_by_what_is_said_on_the_phone() {
    let fixture = Fixture::start().await;
    let mut receipts = Vec::new();
    for n in 0..25 {
        receipts.push(fixture.append(n, |_| {}).await.receipt().to_string());
    }
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let page = fixture.get(&format!("/api/v1/entries?limit=10{before}")).await.json();
        let entries = page["entries"].as_array().unwrap();
        seen.extend(entries.iter().map(|entry| entry["receipt"].as_str().unwrap().to_owned()));
        fixture.append(1000 + seen.len() as u64, |_| {}).await; // newer ones do not shift the pages
        match page["next"].as_i64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    receipts.reverse();
    assert_eq!(seen, receipts);

    for search in ["customer-7%40example.com", "request-7", "key-7", &receipts[17].to_lowercase()] {
        let found = fixture.get(&format!("/api/v1/entries?search={search}")).await.json();
        assert_eq!(found["entries"].as_array().unwrap().len(), 1, "{search}");
        assert_eq!(found["entries"][0]["request_id"], "request-7", "{search}");
    }
    let by_receipt = fixture.get(&format!("/entries?search={}", receipts[17])).await;
    assert_eq!(by_receipt.header("location"), format!("/entries/{}", receipts[17]));
    assert_eq!(fixture.get("/api/v1/entries?state=odd").await.status, 400);
    assert_eq!(fixture.get("/api/v1/entries?state=held").await.json()["entries"], json!([]));
    assert_eq!(fixture.get("/api/v1/entries/0000-0000").await.status, 404);
    assert_eq!(fixture.get("/entries/nothing").await.status, 404);
}

/// A misspelled filter is not everything.
#[tokio::test]
async fn a_question_with_a_word_that_is_not_known_is_refused() {
    let fixture = Fixture::start().await;
    for path in [
        "/api/v1/entries?sate=held",
        "/api/v1/entries?after=7",
        "/api/v1/audit?lines=7",
        "/api/v1/volumes?day=7",
        "/api/v1/replay/impact?rout=checkout",
    ] {
        let answer = fixture.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert!(answer.json()["detail"].as_str().unwrap().contains("unknown field"), "{path}");
    }
}

/// Whoever asks for more than there is at once would take a part for all.
#[tokio::test]
async fn a_number_out_of_its_range_is_refused_by_its_name() {
    let fixture = Fixture::start().await;
    for (path, name, least, most) in [
        ("/api/v1/entries", "limit", 1, 200),
        ("/api/v1/entries", "before", 1, i64::MAX),
        ("/api/v1/audit", "limit", 1, 1000),
        ("/api/v1/volumes", "days", 1, 366),
    ] {
        let ask = async |number: &str| fixture.get(&format!("{path}?{name}={number}")).await;
        for good in [least, most] {
            assert_eq!(ask(&good.to_string()).await.status, 200, "{path}?{name}={good}");
        }
        let more = i128::from(most) + 1;
        for bad in ["0", "-1", "x", "1.5", "99999999999999999999", &more.to_string()] {
            let answer = ask(bad).await;
            assert_eq!(answer.status, 400, "{path}?{name}={bad}");
            let wanted = format!("`{name}` is a number from {least} to {most}");
            assert_eq!(answer.json()["detail"], wanted, "{path}?{name}={bad}");
        }
    }
}

#[tokio::test]
async fn the_worklist_groups_what_waits_for_a_person() {
    let fixture = Fixture::start().await;
    assert!(fixture.get("/worklist").await.text().contains("Nothing waits for a person"));
    let first = fixture.append(1, held).await.receipt().to_string();
    let second = fixture.append(2, held).await.receipt().to_string();
    let answer = KeptAnswer { status: 422, headers: Vec::new(), body: "out of stock".into() };
    let declined = fixture.declined(3, answer).await.receipt().to_string();
    let page = fixture.get("/worklist").await.text();
    assert!(
        page.contains("Declined by the app (1)") && page.contains("Held: client got no answer (2)"),
        "{page}"
    );
    let place = |text: &str| page.find(text).unwrap();
    assert!(place(&declined) < place(&first) && place(&first) < place(&second), "oldest first");
    let entry = fixture.get(&format!("/entries/{declined}")).await.text();
    assert!(entry.contains("The app answered 422") && entry.contains("out of stock"));
}

#[tokio::test]
async fn a_declined_entry_that_a_person_followed_up_leaves_the_worklist_and_stays_declined() {
    let fixture = Fixture::start().await;
    let answer = KeptAnswer { status: 422, headers: Vec::new(), body: "out of stock".into() };
    let id = fixture.declined(1, answer.clone()).await.receipt().to_string();
    let other = fixture.declined(2, answer).await.receipt().to_string();
    let stored = fixture.append(3, |_| {}).await.receipt().to_string();
    let declined = async || {
        let status = fixture.get("/api/v1/status").await.json();
        (status["routes"][0]["declined"].clone(), status["severity"].clone())
    };
    assert_eq!(declined().await, (json!(2), json!("warn")));

    let path = format!("/api/v1/entries/{id}/follow-up");
    assert_eq!(fixture.post(&path, &json!({"reason": ""})).await.status, 422);
    assert_eq!(fixture.get(&path).await.status, 405, "nothing changes by GET");
    let done =
        fixture.post(&path, &json!({"reason": "called, has ordered elsewhere"})).await.json();
    assert_eq!((&done["state"], &done["outcome"]), (&json!("closed"), &json!("declined")));
    assert!(done["followed_up"].is_string(), "{done}");
    let last = done["history"].as_array().unwrap().last().unwrap();
    assert_eq!(last["why"], "followed up: called, has ordered elsewhere");
    assert_eq!(last["who"], "local");
    let again = fixture.post(&path, &json!({"reason": "again"})).await;
    assert_eq!(again.status, 409, "{}", again.text());
    let path = format!("/api/v1/entries/{stored}/follow-up");
    assert_eq!(fixture.post(&path, &json!({"reason": "not declined"})).await.status, 409);
    let audit = fixture.get("/api/v1/audit").await.json();
    assert_eq!(audit.as_array().unwrap().len(), 1, "{audit}");
    assert_eq!((&audit[0]["what"], &audit[0]["on"]), (&json!("follow_up"), &json!(id)));

    let worklist = fixture.get("/worklist").await.text();
    assert!(worklist.contains("Declined by the app (1)") && !worklist.contains(&id), "{worklist}");
    let listed = async |query: &str| {
        let list = fixture.get(&format!("/api/v1/entries?outcome=declined{query}")).await.json();
        let receipt = |entry: &serde_json::Value| entry["receipt"].as_str().unwrap().to_owned();
        list["entries"].as_array().unwrap().iter().map(receipt).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, [&*other, &id]);
    assert_eq!(listed("&followed_up=yes").await, [&*id]);
    assert_eq!(listed("&followed_up=no").await, [&*other]);

    // The other one on the page, in two steps.
    let page = fixture.get(&format!("/entries/{other}")).await.text();
    assert!(page.contains(&format!("href=\"/entries/{other}/follow-up\"")), "{page}");
    assert!(
        fixture.get(&format!("/entries/{other}/follow-up")).await.text().contains("followed up")
    );
    let path = format!("/entries/{other}/follow-up");
    assert_eq!(fixture.form(&path, &[("reason", "entered by hand")]).await.status, 303);
    assert!(fixture.get("/worklist").await.text().contains("Nothing waits for a person"));
    assert_eq!(declined().await, (json!(0), json!("good")));
    let page = fixture.get(&format!("/entries/{other}")).await.text();
    assert!(page.contains("declined, followed up") && !page.contains("/follow-up"), "{page}");
}

#[tokio::test]
async fn whose_bytes_were_downloaded_is_in_the_audit_log() {
    let fixture = Fixture::start().await;
    let id = fixture.append(1, |_| {}).await.receipt().to_string();
    for (part, expected) in [("request", "cart-1"), ("answer", "accepted")] {
        let bytes = fixture.get(&format!("/api/v1/entries/{id}/{part}")).await;
        assert!(bytes.text().contains(expected), "{}", bytes.text());
        let audit = fixture.get("/api/v1/audit").await.json();
        assert_eq!((&audit[0]["what"], &audit[0]["on"]), (&json!("download"), &json!(id)));
        assert_eq!(audit[0]["why"], format!("downloaded the body of the {part}"));
        assert_eq!(audit[0]["who"], "local");
    }
    assert_eq!(fixture.get("/api/v1/entries/0000-0000/request").await.status, 404);
    assert_eq!(
        fixture.store.audit_log(10).await.unwrap().len(),
        2,
        "who looks at nothing took nothing"
    );
    // What nobody could write down is not given.
    fixture.store.clone().close().await;
    let refused = fixture.get(&format!("/api/v1/entries/{id}/request")).await;
    assert_eq!(refused.status, 503, "{}", refused.text());
}

/// However many wait, the oldest come first and none is out of reach.
#[tokio::test]
async fn the_worklist_is_paged_to_its_end() {
    let fixture = Fixture::start().await;
    let plenty = Arc::new(Caps { open: 10_000, open_sum: None, per_customer: None });
    let appends = (0..1101).map(|n| {
        let caps = Arc::clone(&plenty);
        fixture.append(n, move |entry| {
            entry.caps = caps;
            entry.held =
                Some(if n % 100 == 7 { HeldReason::Expired } else { HeldReason::Unanswered });
        })
    });
    let receipts: Vec<String> = futures_util::future::join_all(appends)
        .await
        .iter()
        .map(|durable| durable.receipt().to_string())
        .collect();
    for (group, title, count) in [
        ("unanswered", "Held: client got no answer (1090)", 1090),
        ("expired", "Held: expired (11)", 11),
    ] {
        assert!(fixture.get("/worklist").await.text().contains(title));
        let (mut seen, mut path) = (Vec::new(), format!("/worklist/{group}"));
        loop {
            let page = fixture.get(&path).await.text();
            assert!(page.contains(title), "{page}");
            let mut shown = page.split("class=\"receipt\" href=\"/entries/").skip(1);
            seen.extend(shown.by_ref().map(|row| row[..9].to_owned()));
            let Some((_, next)) = page.split_once(&format!("href=\"/worklist/{group}?after="))
            else {
                break;
            };
            path = format!("/worklist/{group}?after={}", next.split('"').next().unwrap());
        }
        assert_eq!(seen.len(), count);
        let order: Vec<usize> = seen
            .iter()
            .map(|id| receipts.iter().position(|receipt| receipt == id).unwrap())
            .collect();
        assert!(order.is_sorted_by_key(|n| n), "oldest first, each once");
        assert!(order.windows(2).all(|two| two[0] < two[1]));
    }
    assert_eq!(fixture.get("/worklist/nothing").await.status, 404);
}

#[tokio::test]
async fn readiness_means_that_it_can_forward() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.get("/healthz").await.text(), "alive\n");
    assert_eq!(fixture.get("/readyz").await.text(), "ready\n");
    fixture.store.stop_accepting("a test said so");
    let degraded = fixture.get("/readyz").await;
    assert_eq!(degraded.status, 200, "it can still forward");
    assert!(degraded.text().starts_with("degraded: no stand-ins"), "{}", degraded.text());
    let metrics = fixture.get("/metrics").await.text();
    assert!(metrics.contains("\nstandin_store_accepting 0.0\n"), "{metrics}");
    fixture.draining.send_replace(true);
    assert_eq!(fixture.get("/readyz").await.status, 503);

    let standby = Fixture::with(AdminConfig::default(), Role::Standby).await;
    assert_eq!(standby.get("/readyz").await.status, 200);
    standby.store.stop_accepting("a test said so");
    assert_eq!(standby.get("/readyz").await.status, 503, "it can do nothing else");
}

#[tokio::test]
async fn a_clock_that_jumps_is_seen_in_status_and_metrics() {
    let fixture = Fixture::start().await;
    let metrics = fixture.get("/metrics").await.text();
    assert!(metrics.contains("\nstandin_clock_jumps_total 0\n"), "{metrics}");
    let steady = tokio::time::Instant::now();
    let now = UnixMillis::now();
    let at = |wall| Reading { wall, steady };
    fixture.handles().clocks.look(at(now.minus(Duration::from_secs(3600))), at(now));
    let metrics = fixture.get("/metrics").await.text();
    assert!(metrics.contains("\nstandin_clock_jumps_total 1\n"), "{metrics}");
    let status = fixture.get("/api/v1/status").await.text();
    assert!(status.contains("The clock jumped ahead by 3600 s"), "{status}");
    let page = fixture.get("/").await.text();
    assert!(page.contains("The clock jumped ahead by 3600 s"), "{page}");
}

#[tokio::test]
async fn the_health_address_shows_health_and_metrics_only() {
    let fixture = Fixture::with(with_token(), Role::Inline).await;
    let ask = async |path: &str| {
        let mut request = get(path);
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("10.0.0.9:9901"));
        crate::support::Client::to(fixture.health).send(request).await.unwrap()
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(ask(path).await.status, 200, "{path}");
    }
    for path in ["/", "/entries", "/api/v1/status", "/api/v1/openapi.json", "/assets/page.css"] {
        assert_eq!(ask(path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn every_route_of_the_document_is_there() {
    let pool = "[egress.ways]\nproxies = [\"http://10.0.0.9:3128#one\"]\n";
    let fixture = Fixture::with_more(pool, AdminConfig::default(), Role::Inline).await;
    let id = fixture.append(1, |_| {}).await.receipt().to_string();
    fixture.records.keep(&Exchange {
        route: &"reports".into(),
        upstream: &"shop".into(),
        request_id: "1",
        took: Duration::ZERO,
        cause: "it broke".into(),
        certainty: Certainty::SentUnknown,
        method: &Method::GET,
        target: &"/reports".parse().unwrap(),
        headers: &HeaderMap::new(),
        body: None,
        answer: None,
    });
    let document = fixture.get("/api/v1/openapi.json").await.json();
    let mut called = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            if path.ends_with("/events") {
                continue; // never ends; has a test of its own
            }
            let path = format!("/api/v1{}", path.replace("{id}", &id));
            let path =
                path.replace("{pool}", "ways").replace("{proxy}", "one").replace("{number}", "1");
            let path = path.replace("{held}", "attempts");
            let answer = match &**method {
                "get" => fixture.get(&path).await,
                _ => fixture.post(&path, &json!({})).await,
            };
            // The body is refused before anything is done: the route is there.
            let expected = if method == "get" { 200 } else { 422 };
            assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text());
            called += 1;
        }
    }
    assert_eq!(called, 31);
}

#[tokio::test]
async fn what_it_takes_is_bounded() {
    let fixture = Fixture::start().await;
    let long =
        fixture.post("/api/v1/mode", &json!({"mode": "auto", "reason": "x".repeat(20_000)})).await;
    assert_eq!(long.status, 413);
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let answer = crate::support::raw(fixture.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut streams = Vec::new();
    let ask = "GET /api/v1/replay/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for _ in 0..32 {
        let mut stream = Raw::to(fixture.address).await;
        stream.write(ask).await;
        stream.read_until("event: runs", LIMIT).await.unwrap();
        streams.push(stream);
    }
    let mut one_more = Raw::to(fixture.address).await;
    one_more.write(ask).await;
    let refused = one_more.read_until("\r\n", LIMIT).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    streams.pop();
    eventually(LIMIT, async || {
        let mut again = Raw::to(fixture.address).await;
        again.write(ask).await;
        again.read_until("\r\n", LIMIT).await.unwrap().starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn the_end_does_not_wait_for_an_event_stream() {
    let mut fixture = Fixture::start().await;
    let mut stream = Raw::to(fixture.address).await;
    stream.write("GET /api/v1/replay/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stream.read_until("event: runs", LIMIT).await.unwrap();
    fixture.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(2), async {
        while let Some(ended) = fixture.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    })
    .await
    .expect("both listeners end at once");
}

#[tokio::test]
async fn counters_of_all_workers_are_in_the_metrics_under_bounded_labels() {
    use standin::telemetry::Answered;
    let fixture = Fixture::start().await;
    fixture.append(1, |_| {}).await;
    fixture.append(2, held).await;
    let checkout = fixture.handles().routes.now().by_name("checkout").unwrap().place;
    fixture.worker.route(checkout).count(Answered::StoodIn, Duration::from_millis(3));
    fixture.worker.route(checkout).count(Answered::ByApp, Duration::from_millis(30));
    let metrics = crate::support::Metrics(fixture.get("/metrics").await.text());
    let of = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(
        of("standin_requests_total", &[("route", "checkout"), ("answered", "stood_in")]),
        1.0
    );
    assert_eq!(of("standin_request_duration_seconds_count", &[("route", "checkout")]), 2.0);
    assert_eq!(
        of("standin_request_duration_seconds_bucket", &[("route", "checkout"), ("le", "0.005")]),
        1.0
    );
    assert_eq!(
        of("standin_request_duration_seconds_bucket", &[("route", "checkout"), ("le", "+Inf")]),
        2.0
    );
    assert_eq!(of("standin_open_entries", &[("route", "checkout")]), 2.0);
    assert_eq!(of("standin_held_entries", &[("route", "checkout")]), 1.0);
    assert_eq!(of("standin_open_amount", &[("route", "checkout")]), 3998.0);
    assert_eq!(
        of("standin_cap_used_ratio", &[("route", "checkout"), ("cap", "open")]),
        2.0 / 500.0
    );
    assert_eq!(of("standin_store_accepting", &[]), 1.0);
    let labels: BTreeSet<&str> = metrics
        .0
        .split(['{', ',', '\n'])
        .filter_map(|part| part.split_once("=\"").map(|(label, _)| label))
        .collect();
    let known = [
        "after",
        "answered",
        "cap",
        "condition",
        "endpoint",
        "file",
        "le",
        "mode",
        "result",
        "role",
        "route",
        "section",
        "state",
        "upstream",
        "version",
        "why",
    ];
    assert_eq!(labels, BTreeSet::from(known));
}

#[tokio::test]
async fn the_alert_rules_ask_for_metrics_that_there_are() {
    let fixture = Fixture::start().await;
    let metrics = fixture.get("/metrics").await.text();
    let rules = include_str!("../deploy/alerts.yaml");
    let names: BTreeSet<&str> = rules
        .split(|c: char| !(c.is_ascii_lowercase() || c == '_'))
        .filter(|word| word.starts_with("standin_"))
        .collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        let there = metrics
            .lines()
            .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        assert!(there, "{name}");
    }
}

#[tokio::test]
async fn a_page_that_is_not_there_is_a_page_for_people_and_a_problem_for_programs() {
    let fixture = Fixture::start().await;
    let mut request = get("/nowhere");
    assert_eq!(
        fixture.send(request.clone()).await.header("content-type"),
        "application/problem+json"
    );
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/html,*/*"));
    let page = fixture.send(request).await;
    assert_eq!(
        (page.status.as_u16(), page.header("content-type")),
        (404, "text/html; charset=utf-8")
    );
}

#[tokio::test]
async fn the_bytes_come_as_a_download_that_no_browser_opens() {
    let fixture = Fixture::start().await;
    let body = "<script>alert(1)</script>\0\u{202e}";
    let id = fixture
        .append(1, |entry| {
            entry.request.body = body.into();
            entry.request.headers[1].1 = "text/html".into();
        })
        .await
        .receipt();
    let answer = fixture.get(&format!("/api/v1/entries/{id}/request")).await;
    assert_eq!(answer.body, body.as_bytes());
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(
        answer.header("content-disposition"),
        format!("attachment; filename=\"{id}-request.txt\"")
    );
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let answer = fixture.get(&format!("/api/v1/entries/{id}/answer")).await;
    assert_eq!(answer.text(), r#"{"status":"accepted"}"#);
}

#[tokio::test]
async fn a_route_that_is_gone_is_still_shown_with_what_is_open_of_it() {
    let fixture = Fixture::start().await;
    fixture.append(1, |entry| entry.route = "old-shop".into()).await;
    let page = fixture.get("/").await.text();
    assert!(page.contains("old-shop") && page.contains("not configured any more"));
    let found = fixture.get("/api/v1/replay/impact?route=old-shop").await.json();
    assert_eq!(found["entries"], 1);
    assert_eq!(fixture.get("/api/v1/replay/impact?route=never-was").await.status, 404);
    assert_eq!(fixture.get("/api/v1/replay/impact?route=a&entry=b").await.status, 400);
}

#[tokio::test]
async fn a_run_is_started_once_audited_and_stopped() {
    let fixture = Fixture::start().await;
    fixture.append(1, |_| {}).await;
    let start = json!({"route": "checkout", "reason": "the app is back"});
    let started = fixture.post("/api/v1/replay/runs", &start).await;
    assert_eq!(started.status, 202);
    let run = started.json();
    assert_eq!(run["total"], 1, "{run}");
    let again = fixture.post("/api/v1/replay/runs", &start).await.json();
    assert_eq!(again["id"], run["id"], "the same scope is the running one");
    let stop = format!("/api/v1/replay/runs/{}/stop", run["id"].as_str().unwrap());
    let stopped = fixture.post(&stop, &json!({"reason": "not yet"})).await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    let audit = fixture.get("/api/v1/audit").await.json();
    let what: Vec<&str> =
        audit.as_array().unwrap().iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["stop replay", "replay", "replay"]);
    assert_eq!(fixture.store.load(Seq(1)).await.unwrap().state, standin::store::State::Stored);
}

#[tokio::test]
async fn the_progress_of_a_replay_is_followed_live() {
    let (standin, mut app) = pair().await;
    app.stop().await;
    eventually(LIMIT, async || standin.post("/orders", "0").await.status == 201).await;
    for n in 1..20 {
        assert_eq!(standin.post("/orders", n.to_string()).await.status, 201);
    }
    let status = standin.admin_get("/api/v1/status").await.json();
    let said = status["sentences"][0]["text"].as_str().unwrap();
    assert!(said.starts_with("orders is standing in since "), "{said}");
    assert_eq!(status["routes"][0]["open"], 20);

    let mut stream = Raw::to(standin.admin_address()).await;
    stream.write("GET /api/v1/replay/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    stream.read_until("event: runs", LIMIT).await.unwrap();
    app.restart().await;
    let progress = stream.read_until("\"state\":\"done\"", LIMIT).await;
    assert!(progress.is_some(), "a run by itself, shown to its end");
    let runs = standin.admin_get("/api/v1/replay/runs").await.json();
    let completed: u64 =
        runs["runs"].as_array().unwrap().iter().map(|run| run["completed"].as_u64().unwrap()).sum();
    assert_eq!(completed, 20, "{runs}");
    eventually(LIMIT, async || {
        let status = standin.admin_get("/api/v1/status").await.json();
        status["sentences"][0]["text"] == "All routes answer."
    })
    .await;
    let page = standin.admin_get("/entries?outcome=completed").await.text();
    assert!(page.contains(">completed</span>"), "{page}");
    let nothing = request(Method::DELETE, "/api/v1/status", bytes::Bytes::new());
    let answer = crate::support::Client::to(standin.admin_address()).send(nothing).await.unwrap();
    assert_eq!(answer.status, 405);
}
