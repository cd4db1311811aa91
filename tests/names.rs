//! An app that is known by name: its addresses are followed, several are tried side by side, and a name that vanishes is
//! asked where it was. Names are looked up at a name server of the test's own.

use std::{net::IpAddr, time::Duration};

use tokio::time::Instant;

use crate::support::{App, Dns, Standin, eventually};

const SOON: Duration = Duration::from_secs(20);
const NAME: &str = "app.test";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(port: u16, dns: &Dns) -> String {
    format!(
        "[upstream.app]\nendpoints = [\"http://{NAME}:{port}\"]\nconnect_timeout = \"2s\"\n\
         health = {{ interval = \"50ms\" }}\nresolver = {{ servers = [\"{}\"] }}\n",
        dns.address()
    )
}

/// Two apps on one port: at 127.0.0.2 and at 127.0.0.3.
async fn two_on_one_port() -> [App; 2] {
    eventually(SOON, async || {
        let one = App::start_at("127.0.0.2:0".parse().unwrap()).await.ok()?;
        let there = (ip("127.0.0.3"), one.address().port()).into();
        let other = App::start_at(there).await.ok()?;
        Some([one, other])
    })
    .await
}

async fn in_front_of(port: u16, dns: &Dns) -> Standin {
    let standin = Standin::start(&config(port, dns)).await;
    standin.upstream_is("up").await;
    standin
}

#[tokio::test]
async fn a_name_is_followed_when_its_time_to_live_is_over() {
    let ([one, other], dns) = (two_on_one_port().await, Dns::start(1).await);
    dns.set(NAME, &[one.address().ip()]);
    let standin = in_front_of(one.address().port(), &dns).await;
    assert_eq!(standin.get("/").await.status, 200);
    assert_eq!((one.seen().len(), other.seen().len()), (1, 0));
    dns.set(NAME, &[other.address().ip()]);
    // Both live: not one request fails, and kept connections do not lead to the old address for ever.
    eventually(SOON, async || {
        assert_eq!(standin.get("/").await.status, 200);
        !other.seen().is_empty()
    })
    .await;
    one.forget();
    for _ in 0..10 {
        assert_eq!(standin.get("/").await.status, 200);
    }
    assert!(one.seen().is_empty());
    let status = standin.admin_get("/api/v1/status").await.json();
    let endpoint = &status["upstreams"][0]["endpoint_states"][0];
    assert_eq!(endpoint["addresses"][0], other.address().to_string(), "{endpoint}");
}

#[tokio::test]
async fn a_name_that_vanishes_is_asked_where_it_was() {
    let ([one, _other], dns) = (two_on_one_port().await, Dns::start(1).await);
    dns.set(NAME, &[one.address().ip()]);
    let standin = in_front_of(one.address().port(), &dns).await;
    dns.set(NAME, &[]);
    let asked = dns.asked();
    eventually(SOON, async || dns.asked() > asked + 4).await;
    for _ in 0..10 {
        assert_eq!(standin.get("/").await.status, 200);
    }
}

/// The app moved, and the old answer would have been good for an hour: a connection that fails asks again.
#[tokio::test]
async fn an_app_that_is_not_where_it_was_is_looked_up_again() {
    let ([mut one, other], dns) = (two_on_one_port().await, Dns::start(3600).await);
    dns.set(NAME, &[one.address().ip()]);
    let standin = in_front_of(one.address().port(), &dns).await;
    assert_eq!(standin.get("/").await.status, 200);
    dns.set(NAME, &[other.address().ip()]);
    assert_eq!(standin.get("/").await.status, 200);
    assert!(other.seen().is_empty(), "the old answer is good");
    one.stop().await;
    eventually(SOON, async || standin.get("/").await.status == 200).await;
    assert!(!other.seen().is_empty());
}

/// One address of several is dead, of either family: nobody notices.
#[tokio::test]
async fn of_several_addresses_one_that_answers_is_enough() {
    let ([mut one, other], dns) = (two_on_one_port().await, Dns::start(3600).await);
    one.stop().await;
    dns.set(NAME, &[one.address().ip(), other.address().ip(), ip("::1")]);
    let standin = in_front_of(one.address().port(), &dns).await;
    for number in 0..20 {
        let began = Instant::now();
        assert_eq!(standin.post("/", number.to_string()).await.status, 201);
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    assert_eq!(other.seen().len(), 20);
}

/// Connections go to all addresses of a name.
#[tokio::test]
async fn connections_are_spread_over_the_addresses_of_a_name() {
    let (apps, dns) = (two_on_one_port().await, Dns::start(3600).await);
    dns.set(NAME, &[apps[0].address().ip(), apps[1].address().ip()]);
    let more = "connections = { idle_time = \"1ms\" }\n";
    let text = format!("{}{more}", config(apps[0].address().port(), &dns));
    let standin = Standin::start(&text).await;
    standin.upstream_is("up").await;
    for _ in 0..20 {
        assert_eq!(standin.get("/").await.status, 200);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(apps.iter().all(|app| app.seen().len() > 4));
}

#[tokio::test]
async fn a_name_server_is_not_asked_more_than_once_a_second() {
    let ([one, _other], dns) = (two_on_one_port().await, Dns::start(0).await);
    dns.set(NAME, &[one.address().ip()]);
    let began = Instant::now();
    let standin = in_front_of(one.address().port(), &dns).await;
    eventually(SOON, async || {
        assert_eq!(standin.get("/").await.status, 200);
        dns.asked() >= 6
    })
    .await;
    // A and AAAA each time, the first time at once.
    let looks = dns.asked().div_ceil(2);
    assert!(looks as f64 <= began.elapsed().as_secs_f64() + 1.0, "{looks} looks");
}
