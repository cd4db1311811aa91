//! Bytes that two HTTP parsers could read in two ways, through a real standin to an origin that records what it gets.
//!
//! Each row of the tables (`framing/requests.rs`, `http2.rs`, `responses.rs`) has its clause. After each comes a canary,
//! on the same connection where it lives and on a fresh one: nobody gets what belongs to another.

mod clients;
mod floods;
mod http2;
pub mod origin;
mod requests;
mod responses;
pub mod wire;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream};

use self::{
    origin::{Origin, Script, Then},
    requests::Expect,
    wire::{Gone, Reply, Wire},
};
use crate::support::Standin;

/// A request with its target filled in.
struct Row {
    name: &'static str,
    bytes: Vec<u8>,
    expect: Expect,
    clause: &'static str,
}

fn rows() -> Vec<Row> {
    let small = requests::all()
        .map(|&(name, bytes, expect, clause)| (name, bytes.to_vec(), expect, clause));
    small
        .chain(requests::large())
        .map(|(name, bytes, expect, clause)| Row {
            name,
            bytes: replace(&bytes, b"{}", target(name).as_bytes()),
            expect,
            clause,
        })
        .collect()
}

/// Ends in a dot: no target is the beginning of another.
fn target(name: &str) -> String {
    format!("/orders/{name}.")
}

/// After so many `failures` the app counts as down.
fn config(origin: SocketAddr, failures: u32) -> String {
    format!(
        r#"
[listen.limits]
head_timeout = "3s"
body_idle = "1s"

[request_id]
trust = []

[upstream.app]
endpoints = ["http://{origin}"]
timeout = "5s"
connect_timeout = "500ms"
late_window = "500ms"
breaker = {{ failures = {failures} }}

[route.orders]
match = "POST /orders/{{name}}"
app_dedupes = {{ by = "x-request-id", for = "7d" }}

[route.orders.stand_in]
accept_if = "true"
at_most = {{ open = 5000 }}
answer = {{ status = 201, json = {{ stood_in = "{{{{ request.id }}}}" }} }}
"#
    )
}

/// A standin in front of an origin whose bad answers are held against nobody.
async fn pair() -> (Standin, Origin) {
    start(1_000_000).await
}

/// A standin whose app is gone after it was seen to answer.
async fn left_alone() -> Standin {
    let (standin, mut origin) = start(5).await;
    origin.stop().await;
    standin
}

async fn start(failures: u32) -> (Standin, Origin) {
    let scripts = responses::all().into_iter().map(|case| (format!("/{}", case.name), case.script));
    let switch =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let tunnel = ("/tunnel".to_owned(), Script { bytes: switch.to_vec(), then: Then::Echo });
    let origin = Origin::start(scripts.chain([tunnel])).await;
    let standin = Standin::start(&config(origin.address(), failures)).await;
    assert_eq!(standin.get("/seen-to-answer-once").await.status, 200);
    (standin, origin)
}

#[test]
fn the_tables_are_as_large_as_promised() {
    let (requests, http2, responses) = (rows(), http2::ALL, responses::all());
    let names = requests.iter().map(|row| row.name).chain(http2.iter().map(|case| case.name));
    let names: Vec<_> = names.chain(responses.iter().map(|case| case.name)).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "a name is used twice");
    assert!(names.len() >= 250, "{} rows", names.len());
    let clauses = requests.iter().map(|row| row.clause).chain(http2.iter().map(|case| case.clause));
    for clause in clauses.chain(responses.iter().map(|case| case.clause)) {
        assert!(clause.starts_with("RFC "), "{clause}");
    }
}

#[tokio::test]
async fn requests_while_the_app_is_up() {
    let (standin, origin) = pair().await;
    let checks = rows().into_iter().map(|row| {
        let (address, origin) = (standin.address(), &origin);
        async move {
            let result = through(&row, address, origin).await;
            result.map_err(|why| format!("{} ({}): {why}", row.name, row.clause))
        }
    });
    all_well(checks).await;
}

async fn through(row: &Row, address: SocketAddr, origin: &Origin) -> Result<(), String> {
    let mut wire = Wire::to(address).await;
    wire.send(&row.bytes).await;
    match row.expect {
        Expect::Refused(statuses) => {
            // What follows on the connection must not be answered either.
            wire.send(canary_request(row.name)).await;
            let reply = wire.reply(false).await.map_err(|gone| format!("no refusal: {gone:?}"))?;
            if !statuses.contains(&reply.status) {
                return Err(format!("not one of {statuses:?}: {reply:?}"));
            }
            wire.is_closed().await?;
            not_at(origin, row)?;
        }
        Expect::Broken => {
            wire.half_close().await;
            not_taken_for_good(wire.reply(false).await, &[])?;
            not_whole_at(origin, row)?;
        }
        Expect::Passes(has, lacks, body) => {
            let reply = wire.reply(false).await.map_err(|gone| format!("no answer: {gone:?}"))?;
            if reply.status != 200 || !reply.text().starts_with("origin saw ") {
                return Err(format!("not the origin's answer: {reply:?}"));
            }
            whole_at(origin, &target(row.name), has, lacks, body)?;
            if !reply.closes() {
                canary(&mut wire, row.name).await?;
            }
        }
    }
    canary(&mut Wire::to(address).await, row.name).await
}

/// With the app away: what had to be refused is refused, nothing of it is stored, and no stand-in answers it.
#[tokio::test]
async fn requests_while_the_app_is_down() {
    let standin = left_alone().await;
    let checks = rows().into_iter().map(|row| {
        let address = standin.address();
        async move {
            let result = in_an_outage(&row, address).await;
            result.map_err(|why| format!("{} ({}): {why}", row.name, row.clause))
        }
    });
    all_well(checks).await;

    let stored: BTreeSet<String> =
        clients::stored(&standin).await.into_iter().map(|entry| entry.target).collect();
    let mut faults = Vec::new();
    let mut stood_in = 0;
    for row in rows() {
        let is_stored = stored.iter().any(|stored| stored.contains(&target(row.name)));
        if is_stored && !matches!(row.expect, Expect::Passes(..)) {
            faults.push(format!("{} ({}) is stored", row.name, row.clause));
        }
        stood_in += usize::from(is_stored);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(
        stored.iter().all(|target| !target.contains("inner") && !target.contains("smuggled")),
        "{stored:?}"
    );
    assert!(
        stood_in >= 20,
        "valid orders are stored, so that the others could have been: {stood_in}"
    );
}

async fn in_an_outage(row: &Row, address: SocketAddr) -> Result<(), String> {
    let mut wire = Wire::to(address).await;
    wire.send(&row.bytes).await;
    match row.expect {
        Expect::Refused(statuses) => {
            let reply = wire.reply(false).await.map_err(|gone| format!("no refusal: {gone:?}"))?;
            if !statuses.contains(&reply.status) {
                return Err(format!("not one of {statuses:?}: {reply:?}"));
            }
            wire.is_closed().await
        }
        Expect::Broken => {
            wire.half_close().await;
            // The app may be known to be down before the body is read.
            not_taken_for_good(wire.reply(false).await, &[503])
        }
        Expect::Passes(..) => {
            let reply = wire.reply(false).await.map_err(|gone| format!("no answer: {gone:?}"))?;
            match reply.status {
                // A stand-in for an order, an honest error for the rest.
                201 if reply.text().contains("stood_in") => Ok(()),
                503 | 502 => Ok(()),
                _ => Err(format!("neither a stand-in nor an honest error: {reply:?}")),
            }
        }
    }
}

/// A head that comes in pieces of one byte is watched like one that comes whole.
#[tokio::test]
async fn a_conflict_in_single_bytes_or_behind_good_requests_is_seen() {
    let (standin, origin) = pair().await;
    let conflict = b"POST /orders/hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut drip = Wire::to(standin.address()).await;
    for byte in conflict {
        drip.send([*byte]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(drip.reply(false).await.unwrap().status, 400);

    let mut later = Wire::to(standin.address()).await;
    for _ in 0..3 {
        later.send(b"POST /before HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        assert_eq!(later.reply(false).await.unwrap().text(), "origin saw POST /before");
        later.send(b"POST /before HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\n\r\n").await;
        assert_eq!(later.reply(false).await.unwrap().text(), "origin saw POST /before");
    }
    later.send(conflict).await;
    assert_eq!(later.reply(false).await.unwrap().status, 400);
    later.is_closed().await.unwrap();

    // Behind a good one in the same write: the good one may be refused with it, the bad one never passes.
    let mut pipelined = Wire::to(standin.address()).await;
    pipelined.send([&b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n"[..], conflict].concat()).await;
    while let Ok(reply) = pipelined.reply(false).await {
        assert!(reply.status == 400 || reply.text() == "origin saw GET /before", "{reply:?}");
    }
    assert!(!origin.got(b"/orders/hidden"));
}

#[tokio::test]
async fn http2_requests() {
    let (standin, origin) = pair().await;
    let checks = http2::ALL.iter().map(|case| {
        let (address, origin) = (standin.address(), &origin);
        async move {
            let result = through_http2(case, address, origin).await;
            result.map_err(|why| format!("{} ({}): {why}", case.name, case.clause))
        }
    });
    all_well(checks).await;
}

async fn through_http2(
    case: &http2::Case,
    address: SocketAddr,
    origin: &Origin,
) -> Result<(), String> {
    let target = target(case.name);
    let outcome = http2::send(address, case, &target).await;
    match case.expect {
        http2::Expect::Refused => {
            if outcome.is_ok()
                || outcome.is_success_of_another_kind()
                || matches!(outcome, http2::Outcome::Silent)
            {
                return Err(format!("not refused: {outcome:?}"));
            }
            let whole = origin.complete(&target);
            if !whole.is_empty() {
                return Err(format!("it reached the origin: {whole:?}"));
            }
        }
        http2::Expect::Passes(has, lacks, body) => {
            if !outcome.is_ok() || !outcome.text().ends_with(&target) {
                return Err(format!("not the origin's answer: {outcome:?}"));
            }
            whole_at(origin, &target, has, lacks, body)?;
        }
    }
    canary(&mut Wire::to(address).await, case.name).await
}

/// In an outage an HTTP/2 request that had to be refused is not stored either.
#[tokio::test]
async fn http2_requests_while_the_app_is_down() {
    let standin = left_alone().await;
    let checks = http2::ALL.iter().map(|case| {
        let address = standin.address();
        async move {
            let outcome = http2::send(address, case, &target(case.name)).await;
            match case.expect {
                http2::Expect::Refused
                    if outcome.is_ok() || outcome.is_success_of_another_kind() =>
                {
                    Err(format!("{} ({}): {outcome:?}", case.name, case.clause))
                }
                _ => Ok(()),
            }
        }
    });
    all_well(checks).await;
    let stored = clients::stored(&standin).await;
    for case in http2::ALL {
        let is_stored = stored.iter().any(|entry| entry.target == target(case.name));
        let passes = matches!(case.expect, http2::Expect::Passes(..));
        let is_post = case.head[0].1 == "POST";
        assert_eq!(is_stored, passes && is_post, "{} ({})", case.name, case.clause);
    }
}

/// RFC 9110 7.8: after a 101 that was asked for, bytes go through as they are, both ways, and nothing else does.
#[tokio::test]
async fn an_accepted_upgrade_is_a_tunnel_of_its_own() {
    let (standin, origin) = pair().await;
    let mut tunnel = Wire::to(standin.address()).await;
    let ask = "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    tunnel.send(ask).await;
    let reply = tunnel.reply(false).await.unwrap();
    assert_eq!(reply.status, 101, "{reply:?}");
    assert_eq!(reply.field("upgrade"), Some("websocket"));
    let bytes = b"\0\x01 POST /orders/in-a-tunnel HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n\xff";
    tunnel.send(bytes).await;
    assert_eq!(tunnel.exactly(bytes.len()).await.unwrap(), bytes);
    for _ in 0..5 {
        canary(&mut Wire::to(standin.address()).await, "beside-a-tunnel").await.unwrap();
    }
    assert!(
        origin.complete("in-a-tunnel").is_empty(),
        "it went through the tunnel, not as a request"
    );
    tunnel.half_close().await;
    tunnel.is_closed().await.unwrap();
}

#[tokio::test]
async fn responses() {
    let (standin, _origin) = pair().await;
    let checks = responses::all().into_iter().map(|case| {
        let address = standin.address();
        async move {
            let result = back(&case, address).await;
            result.map_err(|why| format!("{} ({}): {why}", case.name, case.clause))
        }
    });
    all_well(checks).await;
}

async fn back(case: &responses::Case, address: SocketAddr) -> Result<(), String> {
    use responses::Expect::{Bad, BadOrCut, Whole};
    let mut wire = Wire::to(address).await;
    wire.send(format!("{} /{} HTTP/1.1\r\nHost: a\r\n\r\n", case.method, case.name)).await;
    let reply = wire.reply(case.method == "HEAD").await;
    let is_ours = |reply: &Reply| reply.status == 502 && reply.text().contains("about:blank");
    match (case.expect, &reply) {
        (Bad | BadOrCut, Ok(reply)) if is_ours(reply) => {}
        (BadOrCut, Err(Gone::Closed(_))) => {}
        (Whole(status, body, has, lacks), Ok(reply))
            if reply.status == status && reply.body == body =>
        {
            let all = format!("{}{}", reply.head, reply.trailers);
            let missing = has.iter().find(|text| !all.contains(**text));
            let present = lacks.iter().find(|text| all.contains(**text));
            if missing.is_some() || present.is_some() {
                return Err(format!("without {missing:?}, with {present:?}: {reply:?}"));
            }
        }
        _ => return Err(format!("not {:?}: {reply:?}", case.expect)),
    }
    if reply.is_ok_and(|reply| !reply.closes()) {
        canary(&mut wire, case.name).await?;
    }
    for _ in 0..3 {
        canary(&mut Wire::to(address).await, case.name).await?;
    }
    Ok(())
}

/// Clients that leave in every way there is, while the app is away.
#[tokio::test]
async fn a_thousand_clients_that_leave_during_an_outage() {
    let standin = left_alone().await;
    clients::leave(&standin, 1000).await;
}

/// Runs all, some at a time, and shows every fault at once.
async fn all_well(checks: impl Iterator<Item = impl Future<Output = Result<(), String>>>) {
    let results: Vec<_> = stream::iter(checks).buffer_unordered(16).collect().await;
    let faults: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn canary_request(name: &str) -> String {
    format!("GET /canary/{name} HTTP/1.1\r\nHost: a\r\n\r\n")
}

async fn canary(wire: &mut Wire, name: &str) -> Result<(), String> {
    wire.send(canary_request(name)).await;
    match wire.reply(false).await {
        Ok(reply) if reply.text() == format!("origin saw GET /canary/{name}") => Ok(()),
        other => Err(format!("the canary got {other:?}")),
    }
}

/// Nothing that says "it is done": an answer of 4xx, or none.
fn not_taken_for_good(reply: Result<Reply, Gone>, also: &[u16]) -> Result<(), String> {
    match reply {
        Ok(reply)
            if [400, 408, 413, 431].contains(&reply.status) || also.contains(&reply.status) =>
        {
            Ok(())
        }
        Err(Gone::Closed(nothing)) if nothing.is_empty() => Ok(()),
        other => Err(format!("not refused: {other:?}")),
    }
}

fn not_at(origin: &Origin, row: &Row) -> Result<(), String> {
    let target = target(row.name);
    if origin.got(target.as_bytes()) { Err("it reached the origin".to_owned()) } else { Ok(()) }
}

fn not_whole_at(origin: &Origin, row: &Row) -> Result<(), String> {
    match origin.complete(&target(row.name)).first() {
        Some(whole) => Err(format!("it reached the origin as a whole request: {whole:?}")),
        None => Ok(()),
    }
}

fn whole_at(
    origin: &Origin,
    target: &str,
    has: &[&str],
    lacks: &[&str],
    body: &[u8],
) -> Result<(), String> {
    let received = origin.complete(target);
    let [received] = &received[..] else {
        return Err(format!("at the origin {} times: {received:?}", received.len()));
    };
    let all = format!("{}{}", received.head, received.trailers);
    let (_, fields) = all.split_once("\r\n").unwrap_or_default();
    if let Some(missing) = has.iter().find(|text| !all.contains(**text)) {
        return Err(format!("without {missing:?}: {all}"));
    }
    if let Some(present) = lacks.iter().find(|text| fields.to_ascii_lowercase().contains(**text)) {
        return Err(format!("with {present:?}: {all}"));
    }
    if received.body != body {
        return Err(format!("with the body {:?}", String::from_utf8_lossy(&received.body)));
    }
    Ok(())
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(bytes.len() + to.len());
    let mut rest = bytes;
    while let Some(place) = memchr::memmem::find(rest, from) {
        replaced.extend_from_slice(&rest[..place]);
        replaced.extend_from_slice(to);
        rest = &rest[place + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// A connection that is closed while its client still sends is reset, and a reset may take away what was not read yet
/// (RFC 9112 9.6): the end of the answer is told before.
#[tokio::test]
async fn who_still_sends_hears_the_answer_and_its_end() {
    use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream};
    let standin = Standin::start(&config(Origin::start([]).await.address(), 3)).await;
    let both = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    for _ in 0..10 {
        let mut client = TcpStream::connect(standin.address()).await.unwrap();
        // More than is read before it is refused.
        let sent = [both.as_bytes(), &[b'x'; 256 << 10]].concat();
        client.write_all(&sent).await.unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&heard));
    }
}
