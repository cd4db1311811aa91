//! What a standin knows, through its admin API.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

impl Standin {
    /// All entries (at most 200), newest first.
    pub async fn entries(&self) -> Vec<Value> {
        let answer = self.admin_get("/api/v1/entries?limit=200").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["entries"].as_array().unwrap().clone()
    }

    /// The only entry there is, with all that is shown of it.
    #[track_caller]
    pub fn entry(&self) -> impl Future<Output = Value> {
        let asked_from = std::panic::Location::caller();
        async move {
            let entries = self.entries().await;
            let [entry] = &entries[..] else { panic!("{asked_from}: {entries:?}") };
            self.admin_get(&format!("/api/v1/entries/{}", entry["seq"])).await.json()
        }
    }

    /// Waits until the only entry is like this: `stored`, `held(unanswered)`, `completed` …
    #[track_caller]
    pub fn entry_becomes(&self, wanted: &str) -> impl Future<Output = Value> {
        eventually(SOON, async move || {
            let entries = self.entries().await;
            let now = entries.iter().map(word).collect::<Vec<_>>();
            if now != [wanted] {
                return Err(format!("{now:?}, not [{wanted:?}]"));
            }
            Ok(self.entry().await)
        })
    }

    /// Waits until its first upstream is `up`, `down` or `probing`.
    #[track_caller]
    pub fn upstream_is(&self, wanted: &str) -> impl Future<Output = ()> {
        eventually(SOON, async move || {
            let status = self.admin_get("/api/v1/status").await.json();
            let now = &status["upstreams"][0]["condition"];
            if now == wanted { Ok(()) } else { Err(format!("{now}, not {wanted}")) }
        })
    }

    /// Sets the mode of all routes, or of one.
    pub async fn mode(&self, mode: &str, more: Value) {
        let mut asked = json!({ "mode": mode, "reason": "a test" });
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.admin_post("/api/v1/mode", &asked).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Where an entry stands, in one word.
fn word(entry: &Value) -> String {
    match (&entry["outcome"], &entry["held"]) {
        (Value::String(outcome), _) => outcome.clone(),
        (_, Value::String(held)) => format!("held({held})"),
        _ => entry["state"].as_str().unwrap().to_owned(),
    }
}

/// A moment as the API writes it, in milliseconds since 1970.
pub fn millis(at: &Value) -> i64 {
    at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
}
