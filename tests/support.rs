//! What every black-box test stands on: a standin process, a shop process, an app in this process, and clients.
//!
//! Ports are always 0, files lie in a folder of their own, and nothing sleeps to wait: [`eventually`] asks again until
//! the answer is right, and says what it last saw when it never is. What the processes wrote is shown when a test fails.

#![allow(dead_code, reason = "not every test needs every helper")]

mod app;
mod client;
mod damage;
mod dns;
mod entries;
mod frames;
mod http2_app;
mod middlebox;
mod pki;
mod process;
mod shop;
mod stage;
mod standin;
mod tinyproxy;
mod tls_app;
mod wait;

#[allow(unused_imports, reason = "not every test needs every helper")]
pub use self::{
    app::{App, Behaviour, Seen},
    client::{Answer, Client, Http2Client, NoAnswer, Raw, raw},
    damage::{damage, empty_the_log},
    dns::Dns,
    entries::millis,
    frames::{CANCEL, Do, Frames, INTERNAL_ERROR, NO_ERROR, Posted, REFUSED_STREAM},
    http2_app::{Http2App, Making, SeenByHttp2App},
    middlebox::Middlebox,
    pki::{Pair, Pki, TlsClient},
    process::{Process, binary, folder, lives_on_a_disk_that_does_not_live},
    shop::{LedgerRow, Shop},
    stage::{Asked, Stage},
    standin::{Metrics, Setup, Standin},
    tinyproxy::{NobodyThere, Tinyproxy},
    tls_app::{SeenOverTls, TlsApp},
    wait::{Settled, eventually},
};

/// A standin in front of an app, `POST /orders` stood in for whatever its body; the app was seen to answer once.
pub async fn pair() -> (Standin, App) {
    let app = App::start().await;
    let standin = Standin::start(&orders_config(app.address())).await;
    assert_eq!(standin.get("/").await.status, 200);
    (standin, app)
}

/// The configuration of [`pair`]: times short enough for tests.
pub fn orders_config(app: std::net::SocketAddr) -> String {
    format!(
        r#"
[upstream.app]
endpoints = ["http://{app}"]
timeout = "2s"
connect_timeout = "500ms"
late_window = "500ms"
health = {{ interval = "50ms" }}
breaker = {{ min_open = "50ms", max_open = "200ms" }}

[route.orders]
match = "POST /orders"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.orders.stand_in]
accept_if = "true"
answer = {{ status = 201, json = {{ id = "{{{{ request.id }}}}", status = "accepted" }} }}

[route.orders.replay]
min_backoff = "50ms"
"#
    )
}
