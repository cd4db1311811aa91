//! Many held entries are released in one go: by program and on the page, and never those that a person has to look at.

use std::sync::Arc;

use serde_json::{Value, json};
use standin::store::{Caps, Certainty, HeldReason};

use super::fixture::Fixture;

/// Entries held for these reasons, oldest first; every third one is of another route.
async fn held(fixture: &Fixture, reasons: impl IntoIterator<Item = HeldReason>) -> Vec<String> {
    let plenty = Arc::new(Caps { open: 10_000, open_sum: None, per_customer: None });
    let appends = reasons.into_iter().zip(0..).map(|(reason, n)| {
        let caps = Arc::clone(&plenty);
        fixture.append(n, move |entry| {
            entry.caps = caps;
            entry.held = Some(reason);
            if n % 3 == 2 {
                entry.route = "refunds".into();
            }
        })
    });
    let receipt = |durable: standin::store::Durable| durable.receipt().to_string();
    futures_util::future::join_all(appends).await.into_iter().map(receipt).collect()
}

async fn release(fixture: &Fixture, reason: &str, body: Value) -> (u16, Value) {
    let answer = fixture.post(&format!("/api/v1/held/{reason}/release"), &body).await;
    (answer.status.as_u16(), answer.json())
}

async fn state(fixture: &Fixture, receipt: &str) -> Value {
    fixture.get(&format!("/api/v1/entries/{receipt}")).await.json()["state"].clone()
}

#[tokio::test]
async fn all_that_is_held_for_a_reason_is_released_each_with_who_and_why() {
    let fixture = Fixture::start().await;
    let reasons = [HeldReason::Attempts, HeldReason::Attempts, HeldReason::Expired];
    let all = held(&fixture, reasons.into_iter().cycle().take(1000)).await;
    let (status, done) = release(&fixture, "attempts", json!({"reason": "app mended"})).await;
    assert_eq!((status, done), (200, json!({"released": 667, "moved": 0, "left": 0})));
    for n in [0, 1, 600, 999] {
        assert_eq!(state(&fixture, &all[n]).await, "stored", "{n}");
    }
    assert_eq!(state(&fixture, &all[2]).await, "held", "held for another reason");
    let history = fixture.get(&format!("/api/v1/entries/{}/history", all[600])).await.json();
    let last = history.as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["who"], &last["why"]), (&json!("local"), &json!("app mended")));
    let audit = fixture.store.audit_log(1000).await.unwrap();
    assert_eq!(audit.len(), 668, "one for each and one for all");
    let first = audit.last().unwrap();
    assert_eq!(
        (&*first.what, &*first.on, &*first.why),
        ("release all", "held: attempts", "app mended")
    );
    let again = release(&fixture, "attempts", json!({"reason": "once more"})).await;
    assert_eq!(again, (200, json!({"released": 0, "moved": 0, "left": 0})));
}

#[tokio::test]
async fn the_oldest_come_first_up_to_a_number_and_of_a_route() {
    let fixture = Fixture::start().await;
    let all = held(&fixture, [HeldReason::Credentials; 30]).await;
    let of_a_route = json!({"reason": "new token", "route": "refunds", "at_most": 4});
    let (_, done) = release(&fixture, "credentials", of_a_route).await;
    assert_eq!(done, json!({"released": 4, "moved": 0, "left": 26}));
    let (_, done) =
        release(&fixture, "credentials", json!({"reason": "new token", "at_most": 10})).await;
    assert_eq!(done, json!({"released": 10, "moved": 0, "left": 16}));
    for (n, receipt) in all.iter().enumerate() {
        let released = matches!(n, 2 | 5 | 8 | 11) || n <= 13;
        let expected = if released { "stored" } else { "held" };
        assert_eq!(state(&fixture, receipt).await, expected, "{n}");
    }
}

/// Whoever releases one that is unclear vouches that it was not applied: nobody can say that of many.
#[tokio::test]
async fn what_has_to_be_looked_at_is_not_released_with_others() {
    let fixture = Fixture::start().await;
    let reasons = [HeldReason::Unclear, HeldReason::Unanswered, HeldReason::Damaged];
    let all = held(&fixture, reasons).await;
    for (reason, receipt) in ["unclear", "unanswered", "damaged"].into_iter().zip(&all) {
        let (status, problem) = release(&fixture, reason, json!({"reason": "all of them"})).await;
        assert_eq!(status, 409, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("one by one"), "{problem}");
        let page = fixture.get(&format!("/worklist/{reason}/release")).await.text();
        assert!(page.contains("one by one") && !page.contains("method=\"post\""), "{page}");
        let fields = [("reason", "all of them"), ("at_most", "9")];
        let form = fixture.form(&format!("/worklist/{reason}/release"), &fields).await;
        assert_eq!(form.status, 409);
        assert_eq!(state(&fixture, receipt).await, "held");
    }
    assert!(!fixture.get("/worklist").await.text().contains("Release all"));
    assert!(fixture.store.audit_log(10).await.unwrap().is_empty());
}

/// What was in doubt stays in doubt: only the app's protection lets it out again.
#[tokio::test]
async fn who_releases_many_vouches_for_none() {
    let fixture = Fixture::start().await;
    let durable = fixture
        .append(1, |entry| {
            entry.held = Some(HeldReason::ByPerson);
            entry.certainty = Certainty::SentUnknown;
        })
        .await;
    let (_, done) = release(&fixture, "by_person", json!({"reason": "go on"})).await;
    assert_eq!(done["released"], 1);
    let entry = fixture.get(&format!("/api/v1/entries/{}", durable.receipt())).await.json();
    assert_eq!((&entry["state"], &entry["certainty"]), (&json!("stored"), &json!("sent_unknown")));
}

#[tokio::test]
async fn a_question_that_makes_no_sense_releases_nothing() {
    let fixture = Fixture::start().await;
    held(&fixture, [HeldReason::Attempts; 3]).await;
    for (reason, body, status) in [
        ("attempts", json!({"reason": " "}), 422),
        ("attempts", json!({}), 422),
        ("attempts", json!({"reason": "x", "at_most": 0}), 400),
        ("attempts", json!({"reason": "x", "at_most": 10_001}), 400),
        ("attempts", json!({"reason": "x", "route": "nowhere"}), 404),
        ("attempts", json!({"reason": "x", "rute": "checkout"}), 422),
        ("attempts", json!({"reason": "x", "extend": "soon"}), 400),
        ("nonsense", json!({"reason": "x"}), 400),
    ] {
        let (answered, problem) = release(&fixture, reason, body.clone()).await;
        assert_eq!(answered, status, "{reason} {body} {problem}");
    }
    assert_eq!(fixture.get("/api/v1/held/attempts/release").await.status, 405);
    let held = fixture.get("/api/v1/entries?state=held").await.json();
    assert_eq!(held["entries"].as_array().unwrap().len(), 3);
    assert!(fixture.store.audit_log(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn on_the_page_it_takes_two_steps_and_so_many_as_were_asked_about() {
    let fixture = Fixture::start().await;
    let all = held(&fixture, [HeldReason::Expired; 4]).await;
    let worklist = fixture.get("/worklist").await.text();
    assert!(worklist.contains("href=\"/worklist/expired/release\""), "{worklist}");
    let asked = fixture.get("/worklist/expired/release").await.text();
    assert!(asked.contains("Release 4 entries that are held: expired?"), "{asked}");
    assert!(
        asked.contains("name=\"at_most\" value=\"4\"") && asked.contains("name=\"extend\""),
        "{asked}"
    );
    assert_eq!(state(&fixture, &all[0]).await, "held", "to ask changes nothing");
    // One more comes before the answer.
    let late = fixture.append(99, |entry| entry.held = Some(HeldReason::Expired)).await;
    let form = [("reason", "still wanted"), ("extend", "2h"), ("at_most", "4")];
    let answer = fixture.form("/worklist/expired/release", &form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(answer.headers["location"], "/worklist?done=release-all");
    for receipt in &all {
        assert_eq!(state(&fixture, receipt).await, "stored");
    }
    assert_eq!(state(&fixture, &late.receipt().to_string()).await, "held");
    let after = fixture.get("/worklist?done=release-all").await.text();
    assert!(after.contains("They are released") && after.contains("Held: expired (1)"), "{after}");
    assert!(!after.contains("Release all"), "one is released by itself");
    let nothing = fixture.get("/worklist/attempts/release").await.text();
    assert!(nothing.contains("nothing is held for this reason now"), "{nothing}");
    assert_eq!(fixture.get("/worklist/declined/release").await.status, 404);
}
