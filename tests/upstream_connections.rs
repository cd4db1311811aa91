//! Connections to the app: HTTP/2 in clear and over TLS, what each way of breaking leaves behind, how many there are, and
//! those that are kept open.

mod certainty;
mod http2;
mod idle;
mod kept_open;
mod limits;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};

use crate::support::{Answer, Client, NoAnswer, Standin};

const SOON: Duration = Duration::from_secs(20);

/// One worker before an app at `url`, `POST /orders` stood in for. `upstream` and `connections` are lines of these tables.
fn config(url: &str, upstream: &str, connections: &str) -> String {
    format!(
        r#"
workers = 1
[upstream.app]
endpoints = ["{url}"]
timeout = "3s"
connect_timeout = "500ms"
late_window = "1500ms"
health = {{ interval = "50ms" }}
breaker = {{ failures = 100, min_open = "50ms", max_open = "200ms" }}
{upstream}

[upstream.app.connections]
{connections}

[route.orders]
match = "POST /orders"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.orders.stand_in]
accept_if = "true"
answer = {{ status = 202, json = {{ id = "{{{{ request.id }}}}" }} }}

[route.orders.replay]
trigger = "manual"
"#
    )
}

/// In clear, without asking.
const HTTP2: &str = "http2 = \"prior_knowledge\"";

/// A standin that has seen the app answer.
async fn before(url: &str, upstream: &str, connections: &str) -> Standin {
    let standin = Standin::start(&config(url, upstream, connections)).await;
    standin.upstream_is("up").await;
    standin
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::builder().method(method).uri(path).body(body.into()).unwrap()
}

/// All at once, each on a connection of its own.
async fn at_once(
    standin: &Standin,
    requests: impl IntoIterator<Item = Request<Bytes>>,
) -> Vec<Result<Answer, NoAnswer>> {
    let address = standin.address();
    join_all(
        requests.into_iter().map(|request| async move { Client::to(address).send(request).await }),
    )
    .await
}

fn statuses(answers: &[Result<Answer, NoAnswer>]) -> Vec<u16> {
    let mut statuses: Vec<_> =
        answers.iter().map(|answer| answer.as_ref().unwrap().status.as_u16()).collect();
    statuses.sort_unstable();
    statuses
}
