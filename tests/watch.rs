//! What standin says of single requests: those that take long.

use std::time::Duration;

use serde_json::Value;

use crate::support::{App, Behaviour, Raw, Stage, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);

async fn in_front_of(address: impl ToString, upstream: &str, routes: &str) -> Standin {
    let standin = Standin::start(&format!(
        "[log]\nformat = \"json\"\n[upstream.app]\nendpoints = [\"http://{}\"]\n{upstream}\n{routes}",
        address.to_string()
    ))
    .await;
    standin.upstream_is("up").await;
    standin
}

/// What was said of slow requests so far.
fn warnings(standin: &Standin) -> Vec<Value> {
    let output = standin.output();
    let lines = output.lines().filter_map(|line| line.find('{').map(|at| &line[at..]));
    let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line.to_string().contains("a slow request")).collect()
}

/// Once there are so many.
async fn warned(standin: &Standin, count: usize) -> Vec<String> {
    eventually(SOON, async || {
        let found: Vec<String> = warnings(standin).iter().map(Value::to_string).collect();
        if found.len() >= count { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

async fn passed(standin: &Standin, route: &str, threshold: &str) -> f64 {
    let labels = [("route", route), ("threshold", threshold)];
    standin.metrics().await.sum("standin_slow_requests_total", &labels)
}

#[tokio::test]
async fn a_slow_request_is_warned_of_once_for_each_threshold_with_what_it_waits_for() {
    let mut stage = Stage::start().await;
    let routes = "[route.slow]\nmatch = \"/slow\"\nwatch = { slow = [\"50ms\", \"150ms\", \"1h\"] }\n\
                  [route.other]\nmatch = \"/other\"";
    let standin = in_front_of(stage.address(), "", routes).await;
    let ask = |path| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: id-of-{path}\r\n\r\n");
        let address = standin.address();
        async move {
            let mut client = Raw::to(address).await;
            assert!(client.write(head).await);
            client
        }
    };
    let (mut slow, mut other) = (ask("/slow").await, ask("/other").await);
    let mut asked = [stage.asked().await, stage.asked().await];
    let warned = warned(&standin, 2).await;
    for asked in &mut asked {
        asked.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    }
    for client in [&mut slow, &mut other] {
        assert!(client.read_until("ok", SOON).await.unwrap().starts_with("HTTP/1.1 200"));
    }
    for (warning, threshold) in warned.iter().zip(["50ms", "150ms"]) {
        for word in ["\"WARN\"", "\"slow\"", "the app's answer", &format!("\"{threshold}\"")] {
            assert!(warning.contains(word), "{word} is not in {warning}");
        }
        assert_eq!(passed(&standin, "slow", threshold).await, 1.0);
    }
    assert_eq!(passed(&standin, "slow", "1h").await, 0.0);
    assert_eq!(warnings(&standin).len(), 2);
}

#[tokio::test]
async fn what_a_request_waits_for_is_named() {
    let app = App::start().await;
    let routes = r#"
[route.orders]
match = "POST /orders"
dedupe_by = "body.cart"
watch = { slow = ["100ms"] }
stand_in = { accept_if = "true", answer = { status = 201, json = {} } }

[route.uploads]
match = "POST /uploads"
watch = { slow = ["100ms"] }
"#;
    let standin = in_front_of(app.address(), "", routes).await;
    let begin = async |path: &str, length: usize, body: &str| {
        let mut client = Raw::to(standin.address()).await;
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
        client.write(format!("{head}Content-Length: {length}\r\n\r\n{body}")).await;
        client
    };
    // The client's body: small or large, stood in for or not.
    let mut slow = Vec::new();
    for (at, (path, length)) in
        [("/orders", 100), ("/orders", 1 << 17), ("/uploads", 100), ("/uploads", 1 << 17)]
            .into_iter()
            .enumerate()
    {
        slow.push(begin(path, length, "{").await);
        let warning = warned(&standin, at + 1).await.pop().unwrap();
        assert!(warning.contains("the client's body"), "{path} {length}: {warning}");
    }
    drop(slow);
    // The app's answer, and the turn of the one behind it.
    app.behave(Behaviour::Hang);
    let order = r#"{"cart":"c"}"#;
    let _first = begin("/orders", order.len(), order).await;
    let warning = warned(&standin, 5).await.pop().unwrap();
    assert!(warning.contains("the app's answer"), "{warning}");
    let _second = begin("/orders", order.len(), order).await;
    let warning = warned(&standin, 6).await.pop().unwrap();
    assert!(warning.contains("its turn"), "{warning}");
}
