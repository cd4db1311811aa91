//! TLS and the PROXY protocol, with a private authority of the test's own: who is let in, what they see, what the app is
//! told of them, certificates that change while requests run, and the same towards the app.

mod clients;
mod proxy_protocol;
mod rotation;
mod upstream;

use crate::support::{App, Pair, Pki, Standin, orders_config};

/// A standin that speaks TLS with clients, in front of an app that does not.
struct Secure {
    standin: Standin,
    app: App,
    pki: Pki,
}

impl Secure {
    /// With these more lines of `[listen.tls]`; `{ca}` stands for the authority's file.
    async fn start(more: &str) -> Self {
        Self::start_with(more, "").await
    }

    /// With more lines of `[listen]` and its other tables, too.
    async fn start_with(more: &str, listen: &str) -> Self {
        let (app, pki) = (App::start().await, Pki::new());
        let pair = pki.issue("shop", &["shop.example"]);
        let tls = listen_tls(&pair);
        let more = more.replace("{ca}", pki.authority().to_str().unwrap());
        let more = more.replace("{folder}", pki.folder().to_str().unwrap());
        let orders = orders_config(app.address());
        let standin = Standin::start(&format!("{orders}\n[listen]\n{listen}\n{tls}\n{more}")).await;
        Self { standin, app, pki }
    }
}

fn listen_tls(pair: &Pair) -> String {
    format!("[listen.tls]\ncert = {:?}\nkey = {:?}\n", pair.cert, pair.key)
}
