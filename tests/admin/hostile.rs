//! Stored bytes are hostile input, and carry secrets: what must never be seen in any page, answer or metric.

use bytes::Bytes;
use standin::store::{KeptAnswer, NewEntry};

use super::fixture::Fixture;
use crate::support::Answer;

const SCRIPT: &str = "<script>alert(1)</script>";
const BREAKOUT: &str = "\"'><img src=x onerror=alert(2)>\u{202e}\u{1b}[31m";
const CANARY: &str = "canary-1f8d";

/// Everything a client chooses is an attack.
fn hostile(entry: &mut NewEntry) {
    let both = format!("{SCRIPT}{BREAKOUT}");
    entry.request_id = both.clone();
    entry.identity.key_text = both.clone();
    entry.cause = both.clone();
    entry.request.method = "POST".into();
    entry.request.target = format!("/checkout/{both}?{both}");
    entry.request.client_ip = both.clone();
    entry.request.headers.push(("user-agent".into(), both.clone().into()));
    entry
        .request
        .headers
        .push((both.clone(), Bytes::from_static(b"\xff<script>alert(1)</script>")));
    entry.request.trailers.push(("x-trailer".into(), both.clone().into()));
    entry.request.body = both.clone().into();
    entry.answer.headers.push(("x-echo".into(), both.clone().into()));
    entry.answer.body = format!("<html>{both}").into();
    entry.labels = vec![(both.clone(), both)];
}

/// The same, in JSON and form bodies.
fn hostile_json(entry: &mut NewEntry) {
    hostile(entry);
    entry.request.body = serde_json::json!({ SCRIPT: BREAKOUT }).to_string().into();
}

fn secret(entry: &mut NewEntry) {
    for name in [
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "x-session-id",
        "x-csrf-token",
        "my-secret",
        "x-password",
    ] {
        entry.request.headers.push((name.into(), format!("value {CANARY}").into()));
    }
    entry.request.target = format!("/checkout?access_token={CANARY}&x=1");
    entry.request.trailers.push(("x-auth-token".into(), CANARY.into()));
    entry.request.body = format!(r#"{{"user":{{"password":"{CANARY}"}},"cents":1}}"#).into();
    entry.identity.principal = CANARY.into();
    entry.answer.headers.push(("set-cookie".into(), format!("session={CANARY}").into()));
}

/// All pages that show entries, with their forms.
async fn pages(fixture: &Fixture, receipts: &[String]) -> Vec<(String, Answer)> {
    let mut paths: Vec<String> = [
        "/",
        "/entries",
        "/worklist",
        "/replay",
        "/audit",
        "/mode?mode=forced",
        "/replay/start",
        "/entries?search=%3Cscript%3Ealert(1)%3C/script%3E&from=2h&route=%22%27%3E%3Cimg",
        "/entries?state=%3Cscript%3Ealert(1)%3C/script%3E",
        "/mode?mode=forced&route=%3Cscript%3Ealert(1)%3C/script%3E&for=%22%3E%3Cimg%20src=x",
        "/replay/start?scope=route%20%3Cscript%3Ealert(1)%3C/script%3E",
        "/entries/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/?done=%3Cscript%3Ealert(1)%3C/script%3E",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
    ]
    .map(str::to_owned)
    .into();
    for receipt in receipts {
        paths.push(format!("/entries/{receipt}"));
        for act in ["replay", "hold", "release", "write-off"] {
            paths.push(format!("/entries/{receipt}/{act}"));
        }
    }
    let mut answers = Vec::new();
    for path in paths {
        let answer = fixture.get(&path).await;
        answers.push((path, answer));
    }
    answers
}

#[tokio::test]
async fn no_page_has_markup_of_a_strangers() {
    let fixture = Fixture::start().await;
    let mut receipts = Vec::new();
    receipts.push(fixture.append(1, hostile).await.receipt().to_string());
    receipts.push(fixture.append(2, hostile_json).await.receipt().to_string());
    let held = fixture.append(3, |entry| {
        hostile(entry);
        super::held(entry);
    });
    receipts.push(held.await.receipt().to_string());
    let answer = KeptAnswer {
        status: 422,
        headers: vec![("x-app".into(), format!("{SCRIPT}{BREAKOUT}").into())],
        body: format!("{SCRIPT}{BREAKOUT}").into(),
    };
    receipts.push(fixture.declined(4, answer).await.receipt().to_string());
    let reason = format!("{SCRIPT}{BREAKOUT}");
    fixture.form(&format!("/entries/{}/hold", receipts[0]), &[("reason", &reason)]).await;
    fixture.form("/replay/start", &[("scope", ""), ("reason", &reason)]).await;
    fixture.form("/mode", &[("mode", "forced"), ("for", "1h"), ("reason", &reason)]).await;

    let mut shown = 0;
    for (path, answer) in pages(&fixture, &receipts).await {
        let text = answer.text();
        let csp = answer.header("content-security-policy");
        assert!(
            csp.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
            "{path}: {csp}"
        );
        assert!(!csp.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        let own_script = r#"<script src="/assets/page.js" defer></script>"#;
        if answer.header("content-type").starts_with("text/html") {
            let rest = text.replace(own_script, "");
            assert!(!rest.contains("<script") && !rest.contains("<img"), "{path}: {rest}");
            assert!(
                !rest.contains(" style=") && !rest.contains("<style"),
                "the policy forbids it: {path}"
            );
            assert!(!rest.contains(['\u{202e}', '\u{1b}', '\0']), "{path}");
            shown += rest.matches("&#60;script&#62;").count();
        } else {
            assert_eq!(answer.header("content-type"), "application/problem+json", "{path}: {text}");
        }
    }
    assert!(shown > 50, "the attacks were on the pages, escaped: {shown}");
}

#[tokio::test]
async fn no_page_answer_or_metric_shows_a_credential() {
    let fixture = Fixture::start().await;
    let mut receipts = vec![fixture.append(1, secret).await.receipt().to_string()];
    let answer = KeptAnswer {
        status: 422,
        headers: vec![("set-cookie".into(), CANARY.into())],
        body: format!(r#"{{"token":"{CANARY}"}}"#).into(),
    };
    receipts.push(fixture.declined(2, answer).await.receipt().to_string());
    let mut answers = pages(&fixture, &receipts).await;
    for path in ["/metrics", "/readyz", "/api/v1/status", "/api/v1/entries", "/api/v1/audit"] {
        answers.push((path.into(), fixture.get(path).await));
    }
    for receipt in &receipts {
        for path in
            [format!("/api/v1/entries/{receipt}"), format!("/api/v1/entries/{receipt}/history")]
        {
            let answer = fixture.get(&path).await;
            answers.push((path, answer));
        }
    }
    for (path, answer) in &answers {
        assert!(!answer.text().contains(CANARY), "{path}: {}", answer.text());
    }
    let entry = fixture.get(&format!("/entries/{}", receipts[0])).await.text();
    assert!(entry.matches("(kept, not shown)").count() >= 11, "{entry}");
}
