//! What is removed, added and kept on the way, in both directions. Each test names its section.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};

use crate::{
    framing::{
        origin::{Origin, Script, Then},
        wire::Wire,
    },
    support::{Answer, App, Client, Http2Client, Seen, Standin},
};

/// A standin that only passes through, in front of an app; its peers are trusted (loopback) unless told otherwise.
async fn pair(more: &str) -> (Standin, App) {
    let app = App::start().await;
    let standin = Standin::start(&passing(app.address(), more)).await;
    (standin, app)
}

fn passing(app: std::net::SocketAddr, more: &str) -> String {
    format!(
        "{more}\n[upstream.app]\nendpoints = [\"http://{app}\"]\nhealth = {{ interval = \"50ms\" }}\n"
    )
}

const TRUST_NOBODY: &str = "[request_id]\ntrust = []\n";

fn get(fields: &[(&'static str, &'static str)]) -> Request<Bytes> {
    let mut request = Request::builder().uri("/x");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Bytes::new()).unwrap()
}

/// What the app saw of the one request that was sent, and what the client got.
async fn through(standin: &Standin, app: &App, request: Request<Bytes>) -> (Seen, Answer) {
    app.forget();
    let answer = standin.send(request).await;
    let [seen] = &app.seen()[..] else { panic!("the app saw {:?}", app.seen()) };
    (seen.clone(), answer)
}

fn answer_with(app: &App, fields: &'static [(&'static str, &'static str)]) {
    app.answer_with(move |_| {
        let mut response = Response::new(Bytes::from_static(b"body"));
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        response
    });
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

/// RFC 9110 7.6.1: fields of one hop end here, the nominated ones, too, in both directions.
#[tokio::test]
async fn rfc9110_7_6_1_fields_of_one_hop_end_here() {
    let (standin, app) = pair("").await;
    answer_with(
        &app,
        &[
            ("connection", "x-app-own"),
            ("x-app-own", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("x-app-kept", "1"),
        ],
    );
    let request = get(&[
        ("connection", "x-own, keep-alive"),
        ("x-own", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic eA=="),
        ("te", "trailers"),
        ("x-kept", "1"),
    ]);
    let (seen, answer) = through(&standin, &app, request).await;
    for gone in
        ["connection", "x-own", "keep-alive", "proxy-connection", "proxy-authorization", "te"]
    {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(seen.headers["x-kept"], "1");
    for gone in ["connection", "x-app-own", "keep-alive", "proxy-authenticate"] {
        assert!(!answer.headers.contains_key(gone), "{gone}");
    }
    assert_eq!(answer.header("x-app-kept"), "1");
}

/// RFC 9110 7.6.3: `Via` both ways, behind what was there; with the version that the message came in with.
#[tokio::test]
async fn rfc9110_7_6_3_via_is_added_both_ways() {
    let (standin, app) = pair("").await;
    answer_with(&app, &[("via", "1.1 inner")]);
    let (seen, answer) = through(&standin, &app, get(&[("via", "1.0 fred")])).await;
    let via = values(&seen.headers, "via");
    assert_eq!(via[0], "1.0 fred");
    assert!(via[1].starts_with("1.1 standin-") && via.len() == 2, "{via:?}");
    assert_eq!(values(&answer.headers, "via"), ["1.1 inner", via[1]]);

    app.forget();
    Http2Client::to(standin.address()).await.send(get(&[])).await.unwrap();
    assert!(app.seen()[0].headers["via"].to_str().unwrap().starts_with("2.0 standin-"));
}

/// RFC 9110 7.6.3: a request that already passed here is a loop; another standin is none.
#[tokio::test]
async fn rfc9110_7_6_3_a_loop_is_refused() {
    let (inner, app) = pair("").await;
    let outer = Standin::start(&passing(inner.address(), "")).await;
    let (seen, _) = through(&outer, &app, get(&[])).await;
    let via = values(&seen.headers, "via").join(", ");
    assert_eq!(via.matches("standin-").count(), 2, "through two of them: {via}");

    app.forget();
    let mut again = get(&[]);
    again.headers_mut().insert("via", via.parse().unwrap());
    let refused = outer.send(again).await;
    assert_eq!(refused.status, 508);
    assert_eq!(refused.header("proxy-status"), "standin; error=proxy_loop_detected");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    assert!(app.seen().is_empty());
}

/// RFC 7239 5, 7.1: a trusted peer's word about the client is kept and added to.
#[tokio::test]
async fn rfc7239_5_a_trusted_peer_is_believed() {
    let (standin, app) = pair("").await;
    let request = get(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-for", "198.51.100.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "www.shop.example"),
        ("forwarded", "for=203.0.113.7;proto=https"),
    ]);
    let (seen, _) = through(&standin, &app, request).await;
    assert_eq!(values(&seen.headers, "x-forwarded-for"), ["203.0.113.7, 198.51.100.2, 127.0.0.1"]);
    assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&seen.headers, "x-forwarded-host"), ["www.shop.example"]);
    assert_eq!(
        values(&seen.headers, "forwarded"),
        ["for=203.0.113.7;proto=https, for=127.0.0.1;proto=http;host=\"shop.example\""]
    );
}

/// RFC 7239 8.1: anybody else's is replaced.
#[tokio::test]
async fn rfc7239_8_1_anybody_else_is_not() {
    let (standin, app) = pair(TRUST_NOBODY).await;
    let request = get(&[
        ("host", "shop.example"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7"),
    ]);
    let (seen, _) = through(&standin, &app, request).await;
    assert_eq!(values(&seen.headers, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen.headers, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen.headers, "x-forwarded-host"), ["shop.example"]);
    for gone in ["x-forwarded-port", "x-real-ip", "forwarded"] {
        assert!(!seen.headers.contains_key(gone), "{gone}");
    }
}

/// RFC 9562 5.7: every request gets an id, UUIDv7, and the client learns it.
#[tokio::test]
async fn rfc9562_5_7_every_request_has_an_id() {
    let (standin, app) = pair("").await;
    answer_with(&app, &[("x-request-id", "the app's own")]);
    let mut before = String::new();
    for _ in 0..20 {
        let (seen, answer) = through(&standin, &app, get(&[])).await;
        let id = values(&seen.headers, "x-request-id").join(",");
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        assert_eq!(values(&answer.headers, "x-request-id"), [id.as_str()]);
        assert_ne!(id, before);
        before = id;
    }
}

/// RFC 9110 17.1 (what a client says is hostile until shown otherwise): whose id is kept, and which.
#[tokio::test]
async fn rfc9110_17_1_an_id_is_kept_from_trusted_peers_only() {
    let header = "[request_id]\nheader = \"x-correlation-id\"\n";
    let (standin, app) = pair(header).await;
    let (seen, answer) = through(&standin, &app, get(&[("x-correlation-id", "abc-1")])).await;
    assert_eq!(seen.headers["x-correlation-id"], "abc-1");
    assert_eq!(answer.header("x-correlation-id"), "abc-1");
    assert!(!answer.headers.contains_key("x-request-id"));
    for bad in ["", "a b", "a\tb"] {
        let (seen, _) = through(&standin, &app, get(&[("x-correlation-id", bad)])).await;
        assert_eq!(seen.headers["x-correlation-id"].len(), 36, "{bad:?}");
    }
    let two = get(&[("x-correlation-id", "a"), ("x-correlation-id", "b")]);
    let (seen, _) = through(&standin, &app, two).await;
    assert_eq!(values(&seen.headers, "x-correlation-id")[0].len(), 36);

    let (standin, app) = pair(TRUST_NOBODY).await;
    let (seen, _) = through(&standin, &app, get(&[("x-request-id", "abc-1")])).await;
    assert_eq!(seen.headers["x-request-id"].len(), 36);
}

/// RFC 9110 17.1: what standin marks its own replays with cannot come from a client, trusted or not.
#[tokio::test]
async fn rfc9110_17_1_marks_of_standin_are_taken_off() {
    let (standin, app) = pair("").await;
    let marked = get(&[("standin-replay", "1"), ("standin-attempt", "2"), ("standin-other", "x")]);
    let (seen, _) = through(&standin, &app, marked).await;
    let marks: Vec<_> =
        seen.headers.keys().filter(|name| name.as_str().starts_with("standin-")).collect();
    assert!(marks.is_empty(), "{marks:?}");
}

/// RFC 9110 7.2: the app sees the Host that the client asked for.
#[tokio::test]
async fn rfc9110_7_2_host_is_kept() {
    let (standin, app) = pair("").await;
    let (seen, _) = through(&standin, &app, get(&[("host", "Shop.Example:8443")])).await;
    assert_eq!(values(&seen.headers, "host"), ["Shop.Example:8443"]);

    app.forget();
    let request = Request::get("http://Shop.Example:8443/x").body(Bytes::new()).unwrap();
    Http2Client::to(standin.address()).await.send(request).await.unwrap();
    assert_eq!(values(&app.seen()[0].headers, "host"), ["Shop.Example:8443"]);
    assert_eq!(app.seen()[0].target, "/x");
}

/// RFC 9113 8.2.3: cookie crumbs are one field in HTTP/1.1.
#[tokio::test]
async fn rfc9113_8_2_3_cookie_crumbs_are_joined() {
    let (standin, app) = pair("").await;
    let crumbs = get(&[("cookie", "a=1"), ("cookie", "b=2")]);
    Http2Client::to(standin.address()).await.send(crumbs).await.unwrap();
    assert_eq!(values(&app.seen()[0].headers, "cookie"), ["a=1; b=2"]);
}

/// RFC 9110 7.7: everything else goes through as it is: order, case of values, bytes above ASCII, codings.
#[tokio::test]
async fn rfc9110_7_7_the_rest_is_kept() {
    let (standin, app) = pair("").await;
    answer_with(
        &app,
        &[
            ("set-cookie", "a=1; Path=/; HttpOnly"),
            ("set-cookie", "b=2"),
            ("content-encoding", "br"),
            ("cache-control", "private, max-age=0"),
            ("etag", "W/\"x\""),
            ("vary", "Accept-Encoding, Cookie"),
            ("date", "Sun, 22 Nov 2026 09:00:00 GMT"),
            ("server", "shop/1.0"),
            ("strict-transport-security", "max-age=1"),
        ],
    );
    let kept = [
        ("accept", "text/html, */*;q=0.1"),
        ("accept-encoding", "gzip, BR"),
        ("authorization", "Bearer AbC=="),
        ("cookie", "a=\"x y\"; b=2"),
        ("idempotency-key", "\"8e03978e\""),
        ("if-none-match", "W/\"x\""),
        ("origin", "https://shop.example"),
        ("range", "bytes=0-1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("user-agent", "Mozilla/5.0 (X11)"),
        ("x-own", "Two  Spaces"),
    ];
    let mut request = get(&kept);
    let high = HeaderValue::from_bytes(b"caf\xe9").unwrap();
    request.headers_mut().insert("x-high", high.clone());
    request.headers_mut().append("x-list", HeaderValue::from_static("1"));
    request.headers_mut().append("x-list", HeaderValue::from_static("2"));
    let (seen, answer) = through(&standin, &app, request).await;
    for (name, value) in kept {
        assert_eq!(values(&seen.headers, name), [value], "{name}");
    }
    assert_eq!(seen.headers["x-high"], high);
    assert_eq!(values(&seen.headers, "x-list"), ["1", "2"]);
    assert_eq!(values(&answer.headers, "set-cookie"), ["a=1; Path=/; HttpOnly", "b=2"]);
    for (name, value) in [
        ("content-encoding", "br"),
        ("cache-control", "private, max-age=0"),
        ("etag", "W/\"x\""),
        ("vary", "Accept-Encoding, Cookie"),
        ("date", "Sun, 22 Nov 2026 09:00:00 GMT"),
        ("server", "shop/1.0"),
        ("strict-transport-security", "max-age=1"),
    ] {
        assert_eq!(values(&answer.headers, name), [value], "{name}");
    }
    assert_eq!(answer.text(), "body");
    // The only fields that were added.
    let mut added: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    added.retain(|name| !kept.iter().any(|(kept, _)| kept == name) && !name.starts_with("x-high"));
    added.sort_unstable();
    assert_eq!(
        added,
        [
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-list",
            "x-request-id"
        ]
    );
}

/// RFC 9110 10.1.1: standin says 100 itself when it wants the body; the app never sees the expectation.
#[tokio::test]
async fn rfc9110_10_1_1_expect_ends_here() {
    let (standin, app) = pair("").await;
    let mut client = crate::support::Raw::to(standin.address()).await;
    client
        .write("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        .await;
    let interim = client.read_until("\r\n\r\n", std::time::Duration::from_secs(5)).await;
    assert_eq!(interim.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    client.write("hello").await;
    let head = client.read_until("\r\n\r\n", std::time::Duration::from_secs(5)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    let [seen] = &app.seen()[..] else { panic!("{:?}", app.seen()) };
    assert!(!seen.headers.contains_key("expect"));
    assert_eq!(seen.body, "hello");
}

/// RFC 9110 6.5: trailers pass for who announced and wants them, without those that no trailer may set.
#[tokio::test]
async fn rfc9110_6_5_trailers_pass_without_the_forbidden_ones() {
    let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum, Set-Cookie, Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n\
                  5\r\nhello\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\nContent-Length: 99\r\n\r\n";
    let script = Script { bytes: answer.as_bytes().to_vec(), then: Then::Keep };
    let origin = Origin::start([("/sum".to_owned(), script)]).await;
    let standin = Standin::start(&passing(origin.address(), "")).await;
    let mut client = Wire::to(standin.address()).await;
    client.send("GET /sum HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n").await;
    let reply = client.reply(false).await.unwrap();
    assert_eq!(reply.text(), "hello");
    assert_eq!(reply.trailers.to_ascii_lowercase(), "x-sum: 1\r\n");

    client.send("GET /sum HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let reply = client.reply(false).await.unwrap();
    assert_eq!((reply.text().as_str(), reply.trailers.as_str()), ("hello", ""));
}

/// RFC 9110 10.1.4: standin passes trailers on, so it asks for them itself, where the client does: of its own connection, and
/// for nothing but trailers.
#[tokio::test]
async fn rfc9110_10_1_4_trailers_are_asked_for_where_the_client_does() {
    let (standin, app) = pair("").await;
    answer_with(&app, &[]);
    for (fields, asks) in [
        (&[("te", "gzip;q=0.5, trailers"), ("connection", "TE")][..], true),
        (&[("te", "trailers")], false),
        (&[("te", "gzip"), ("connection", "te")], false),
        (&[("connection", "te")], false),
    ] {
        let (seen, _) = through(&standin, &app, get(fields)).await;
        let expected: &[&str] = if asks { &["trailers"] } else { &[] };
        assert_eq!(values(&seen.headers, "te"), expected, "{fields:?}");
        assert_eq!(values(&seen.headers, "connection"), if asks { vec!["te"] } else { vec![] });
    }
    app.forget();
    Http2Client::to(standin.address()).await.send(get(&[("te", "trailers")])).await.unwrap();
    assert_eq!(values(&app.seen()[0].headers, "te"), ["trailers"]);
}

/// A replay's answer goes to nobody who would want its trailers.
#[tokio::test]
async fn rfc9110_10_1_4_a_replay_asks_for_no_trailers() {
    let (standin, mut app) = crate::support::pair().await;
    app.stop().await;
    let mut order = get(&[("te", "trailers"), ("connection", "TE")]);
    *order.method_mut() = Method::POST;
    *order.uri_mut() = "/orders".parse().unwrap();
    assert_eq!(standin.send(order).await.status, 201);
    app.restart().await;
    app.receives([""]).await;
    let seen = &app.seen_of(&Method::POST)[0];
    assert_eq!(seen.headers["standin-replay"], "1");
    assert!(!seen.headers.contains_key("te") && !seen.headers.contains_key("connection"));
}

/// RFC 9112 6.1: no `Transfer-Encoding` to a client of HTTP/1.0, whatever the app sends.
#[tokio::test]
async fn rfc9112_6_1_no_chunks_for_http10() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let script = Script { bytes: answer.as_bytes().to_vec(), then: Then::Keep };
    let origin = Origin::start([("/chunks".to_owned(), script)]).await;
    let standin = Standin::start(&passing(origin.address(), "")).await;
    let mut client = Wire::to(standin.address()).await;
    client.send("GET /chunks HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let reply = client.reply(false).await.unwrap();
    assert_eq!(reply.field("transfer-encoding"), None);
    assert_eq!(reply.text(), "hello");
}

/// RFC 9110 9.3.2: HEAD keeps the length that GET would have had.
#[tokio::test]
async fn rfc9110_9_3_2_head_keeps_its_length() {
    let (standin, app) = pair("").await;
    answer_with(&app, &[]);
    let head = Request::builder().method(Method::HEAD).uri("/x").body(Bytes::new()).unwrap();
    let (seen, answer) = through(&standin, &app, head).await;
    assert_eq!(seen.method, Method::HEAD);
    assert_eq!(answer.header("content-length"), "4");
    assert!(answer.body.is_empty());
}

/// RFC 9457, RFC 9209, RFC 9110 10.2.3: what standin answers itself says so and says what to do.
#[tokio::test]
async fn rfc9457_3_an_honest_error_says_what_it_is() {
    let (standin, mut app) = pair("").await;
    through(&standin, &app, get(&[])).await;
    app.stop().await;
    let mut client = Client::to(standin.address());
    let answer = client.send(get(&[("host", "a")])).await.unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(answer.header("proxy-status").starts_with("standin; error=connection_"), "{answer:?}");
    assert!(answer.header("retry-after").parse::<u32>().unwrap() >= 1);
    assert_eq!(answer.header("x-request-id").len(), 36);
    assert!(!answer.headers.contains_key("via"), "it has not come through us, it is ours");
    let problem = answer.json();
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["type"], "about:blank");
    assert!(!answer.text().contains("127.0.0.1"), "no addresses: {}", answer.text());
}
