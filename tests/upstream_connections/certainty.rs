//! What each way in which an HTTP/2 exchange can break leaves behind, frame by frame: what the app has not looked at goes
//! on to it once more, what it may have applied does not.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Method;

use super::{HTTP2, SOON, at_once, before, request, statuses};
use crate::support::{
    Client, Do, Frames, INTERNAL_ERROR, NO_ERROR, Posted, REFUSED_STREAM, Standin, eventually,
};

async fn before_frames(app: &Frames, connections: &str) -> Standin {
    before(&format!("http://{}", app.address()), HTTP2, connections).await
}

/// What becomes of the first request with a body once it is whole; all others are answered.
fn first_whole(todo: &'static [Do]) -> impl Fn(Posted) -> Vec<Do> + Send + Sync {
    move |posted| match posted {
        Posted { whole: false, .. } => vec![],
        Posted { number: 0, .. } => todo.to_vec(),
        _ => vec![Do::Answer],
    }
}

/// A POST that broke off: its status, and how often the app got it.
async fn post_after(todo: &'static [Do]) -> (u16, usize) {
    let app = Frames::start(first_whole(todo));
    let standin = before_frames(&app, "").await;
    let status = standin.post("/plain", "once").await.status.as_u16();
    (status, app.posted())
}

#[tokio::test]
async fn a_refused_stream_was_not_looked_at() {
    assert_eq!(post_after(&[Do::Reset(REFUSED_STREAM)]).await, (200, 2));
}

/// Who has said something before has looked.
#[tokio::test]
async fn a_stream_that_is_refused_after_an_interim_answer_may_have_been_applied() {
    assert_eq!(post_after(&[Do::Hint, Do::Answer]).await, (200, 1));
    assert_eq!(post_after(&[Do::Hint, Do::Reset(REFUSED_STREAM)]).await, (502, 1));
}

#[tokio::test]
async fn any_other_reset_may_have_been_applied() {
    for code in [NO_ERROR, INTERNAL_ERROR, 8, 11] {
        let todo: &'static [Do] = Box::leak(Box::new([Do::Reset(code)]));
        assert_eq!(post_after(todo).await, (502, 1), "code {code}");
    }
}

#[tokio::test]
async fn what_is_beyond_the_last_stream_of_a_goaway_was_not_looked_at() {
    assert_eq!(post_after(&[Do::GoAway(0, NO_ERROR), Do::Close]).await, (200, 2));
    assert_eq!(post_after(&[Do::GoAway(0, INTERNAL_ERROR), Do::Close]).await, (200, 2));
}

#[tokio::test]
async fn what_is_not_beyond_it_may_have_been_applied() {
    const LAST: u32 = (1 << 31) - 1;
    assert_eq!(post_after(&[Do::GoAway(LAST, NO_ERROR), Do::Close]).await, (502, 1));
    assert_eq!(post_after(&[Do::GoAway(LAST, INTERNAL_ERROR), Do::Close]).await, (502, 1));
    assert_eq!(post_after(&[Do::Close]).await, (502, 1));
}

/// The app lets what it has end, and wants no more on this connection: the next request has a new one.
#[tokio::test]
async fn an_app_that_goes_away_in_order_costs_no_request() {
    const LAST: u32 = (1 << 31) - 1;
    let app = Frames::start(|posted| match posted {
        Posted { whole: false, .. } => vec![],
        Posted { number, .. } if number % 2 == 0 => vec![Do::GoAway(LAST, NO_ERROR), Do::Answer],
        _ => vec![Do::Answer],
    });
    let standin = before_frames(&app, "max = 1").await;
    let mut client = Client::to(standin.address());
    for _ in 0..10 {
        assert_eq!(client.send(request(Method::POST, "/plain", "x")).await.unwrap().status, 200);
    }
    assert_eq!(app.posted(), 10);
}

/// Refused again and again: an honest error that says so, and an entry that says so where it is stood in for.
#[tokio::test]
async fn what_was_refused_is_stood_in_for_as_not_sent() {
    let app = Frames::start(|posted| match posted.whole {
        true => vec![Do::Reset(REFUSED_STREAM)],
        false => vec![],
    });
    let standin = before_frames(&app, "").await;
    let answer = standin.post("/orders", "x").await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let tried = app.posted();
    assert!((2..=4).contains(&tried), "{tried} tries");
    assert_eq!(standin.entry().await["certainty"], "not_sent");
    let refused = standin.post("/plain", "x").await;
    assert_eq!(refused.status, 502);
    assert!(refused.text().contains("was not applied"), "{}", refused.text());

    let app = Frames::start(first_whole(&[Do::Close]));
    let standin = before_frames(&app, "").await;
    assert_eq!(standin.post("/orders", "x").await.status, 202);
    assert_eq!(standin.entry().await["certainty"], "sent_unknown");
}

/// A method that is idempotent goes to the app once more, on another connection, if one that was used before breaks.
#[tokio::test]
async fn what_may_be_sent_twice_is() {
    let app = Frames::start(first_whole(&[Do::Close]));
    let standin = before_frames(&app, "").await;
    assert_eq!(standin.get("/").await.status, 200);
    assert_eq!(standin.send(request(Method::PUT, "/plain", "x")).await.status, 200);
    assert_eq!(app.posted(), 2);
}

/// A connection that dies takes all down that is on it, each with what it left behind: those beyond the last stream go on
/// to another one, the others may have been applied, and which is which is not mixed up.
#[tokio::test]
async fn a_connection_that_dies_leaves_each_stream_its_own_certainty() {
    let streams = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&streams);
    let app = Frames::start(move |posted| {
        if !posted.whole {
            return vec![];
        }
        let mut streams = seen.lock().unwrap();
        streams.push((posted.connection, posted.stream));
        match streams.len() {
            ..6 => vec![],
            // The third of them is the last that it looked at.
            6 => {
                let mut ids: Vec<u32> = streams.iter().map(|(_, stream)| *stream).collect();
                ids.sort_unstable();
                vec![Do::GoAway(ids[2], INTERNAL_ERROR), Do::Close]
            }
            _ => vec![Do::Answer],
        }
    });
    let standin = before_frames(&app, "").await;
    let requests = (0..6).map(|n| request(Method::POST, "/plain", n.to_string()));
    let answers = at_once(&standin, requests).await;
    assert_eq!(statuses(&answers), [200, 200, 200, 502, 502, 502]);
    // Six, and three of them once more.
    assert_eq!(app.posted(), 9);
    let first = streams.lock().unwrap()[0].0;
    let on_first = streams.lock().unwrap().iter().filter(|(on, _)| *on == first).count();
    assert_eq!(on_first, 6, "all were on one connection");
}

/// Streams that the app does not allow are not begun: who waits for one has not been sent.
#[tokio::test]
async fn who_waits_for_a_stream_was_not_sent() {
    let app = Frames::allowing(Some(1), |posted| match posted {
        Posted { number: 0, .. } => vec![],
        Posted { whole, .. } => {
            if whole {
                vec![Do::Answer]
            } else {
                vec![]
            }
        }
    });
    let standin = before_frames(&app, "max = 1").await;
    // Nobody answers the first one; it has the only stream.
    let (hangs, ()) = tokio::join!(standin.post("/orders", "first"), async {
        eventually(SOON, async || app.posted() == 1).await;
        let refused = standin.post("/plain", "second").await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.text().contains("was not applied"), "{}", refused.text());
        assert_eq!(app.posted(), 1);
    });
    assert_eq!(hangs.status, 202);
    // It runs on for its late window, and then there is room.
    eventually(SOON, async || standin.post("/plain", "third").await.status == 200).await;
}

/// An app that is gone without a word: a ping finds that out, what is on the connection is over, and the next request has
/// another one.
#[tokio::test]
async fn a_ping_finds_out_that_nobody_is_there() {
    let app = Frames::start(first_whole(&[Do::FallSilent]));
    let standin = before_frames(&app, "ping = \"200ms\"\nping_timeout = \"300ms\"\nmax = 1").await;
    let began = tokio::time::Instant::now();
    let broken = standin.post("/plain", "x").await;
    assert_eq!(broken.status, 502, "{broken:?}");
    assert!(began.elapsed() < Duration::from_millis(2500), "long before the deadline");
    assert_eq!(standin.post("/plain", "y").await.status, 200);
    assert_eq!(app.posted(), 2);
}

/// An app that is only slow answers pings, and is waited for.
#[tokio::test]
async fn who_answers_pings_is_waited_for() {
    let app = Frames::start(|_| vec![]);
    let standin = before_frames(&app, "ping = \"100ms\"\nping_timeout = \"200ms\"").await;
    let began = tokio::time::Instant::now();
    assert_eq!(standin.post("/plain", "x").await.status, 504);
    assert!(began.elapsed() >= Duration::from_secs(3), "its whole deadline");
    assert!(app.pings() > 5, "{} pings", app.pings());
}

/// A body that its client breaks off never gets an end, and the stream is reset.
#[tokio::test]
async fn a_body_that_breaks_off_is_never_ended() {
    let app = Frames::start(|posted| {
        assert!(!posted.whole, "half a body was given an end");
        vec![]
    });
    let standin = before_frames(&app, "").await;
    let mut client = crate::support::Raw::to(standin.address()).await;
    client.write("POST /plain HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n").await;
    client.write("x".repeat(100_000)).await;
    eventually(SOON, async || app.body_bytes() >= 65_535).await;
    drop(client);
    eventually(SOON, async || app.resets().len() == 1).await;
}

/// Replays go the same way: once, and what the app has not looked at is none of its attempts.
#[tokio::test]
async fn a_replay_goes_over_it_too() {
    let is_well = Arc::new(AtomicBool::new(false));
    let (seen, refused) = (Arc::clone(&is_well), AtomicUsize::new(0));
    let app = Frames::start(move |posted| match posted.whole {
        false => vec![],
        true if !seen.load(Ordering::SeqCst) => vec![Do::Reset(REFUSED_STREAM)],
        // Once more, of the replay itself.
        true if refused.fetch_add(1, Ordering::SeqCst) == 0 => vec![Do::Reset(REFUSED_STREAM)],
        true => vec![Do::Answer],
    });
    let standin = before_frames(&app, "").await;
    assert_eq!(standin.post("/orders", "x").await.status, 202);
    let before = app.posted();
    is_well.store(true, Ordering::SeqCst);
    let why = serde_json::json!({ "reason": "a test" });
    let run = standin.admin_post("/api/v1/replay/runs", &why).await;
    assert!(run.status.is_success(), "{}", run.text());
    let entry = standin.entry_becomes("completed").await;
    assert_eq!((app.posted(), &entry["attempts"]), (before + 2, &serde_json::json!(1)), "{entry}");
}
