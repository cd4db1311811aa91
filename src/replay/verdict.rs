//! From what an attempt gave to what is written into the store, and to what the pace is told. Pure.

use std::time::Duration;

use crate::{
    store::{Certainty, HeldReason, KeptAnswer, Outcome, Verdict},
    time::UnixMillis,
    upstream::{UpstreamError, WholeAnswer},
};

use super::{
    backoff::{Chance, backoff, retry_after},
    classes::{Class, Judged, left_behind},
    pace::Felt,
    policy::Policy,
};

/// How one attempt ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub verdict: Verdict,
    pub felt: Felt,
    /// The upstream gets nothing for so long.
    pub pause: Option<Duration>,
}

/// What the app's answer comes to.
pub(super) fn after_answer(
    policy: &Policy,
    judged: Judged,
    answer: &WholeAnswer,
    attempt: u32,
    now: UnixMillis,
    chance: &mut Chance,
) -> Ending {
    let kept = Some(kept(answer));
    let Judged { class, why } = judged;
    let why = why.into_owned();
    let close = |outcome, felt| {
        let verdict = Verdict::Close { outcome, why: why.clone(), answer: kept.clone() };
        Ending { verdict, felt, pause: None }
    };
    let hold = |reason, certainty| {
        let verdict = Verdict::Hold { reason, certainty, why: why.clone(), answer: kept.clone() };
        Ending { verdict, felt: Felt::Neutral, pause: None }
    };
    match class {
        Class::Success => close(Outcome::Completed, Felt::Good),
        Class::AlreadyApplied => close(Outcome::AlreadyApplied, Felt::Good),
        Class::Declined => close(Outcome::Declined, Felt::Neutral),
        Class::Credentials => hold(HeldReason::Credentials, left_behind(answer.status)),
        Class::Unclear => hold(HeldReason::Unclear, Certainty::SentUnknown),
        Class::Again(certainty) => {
            // Behind a gateway that gave up, the app may still be at it.
            let working = matches!(answer.status.as_u16(), 502 | 504);
            let pause = retry_after(&answer.headers, now);
            let wait = backoff(attempt, policy.min_backoff, policy.max_backoff, chance)
                .max(if working { policy.late_window } else { Duration::ZERO })
                .max(pause.unwrap_or_default());
            // A 4xx about this request (409, or by a rule) says nothing about the app's strength.
            let about_it = answer.status.is_client_error()
                && !matches!(answer.status.as_u16(), 408 | 425 | 429);
            let felt = if about_it { Felt::Neutral } else { Felt::Bad };
            let verdict = again(policy, Some(attempt), certainty, why, kept, now, wait);
            Ending { verdict, felt, pause }
        }
    }
}

/// What an attempt without an answer comes to.
pub(super) fn after_error(
    policy: &Policy,
    error: &UpstreamError,
    attempt: u32,
    now: UnixMillis,
    chance: &mut Chance,
) -> Ending {
    let certainty = error.certainty();
    let (felt, pause) = match error {
        UpstreamError::BreakerOpen { retry_after } => (Felt::Neutral, Some(*retry_after)),
        // Our own trouble: nothing is known of the app, but trying at full pace would not help us.
        UpstreamError::Ourselves { .. } => (Felt::Neutral, Some(policy.min_backoff)),
        UpstreamError::NoWayOut { retry_after, .. } => {
            let pause =
                retry_after.unwrap_or_default().clamp(policy.min_backoff, policy.max_backoff);
            (Felt::Neutral, Some(pause))
        }
        _ => (Felt::Bad, None),
    };
    let (counted, wait) = match certainty {
        // Not an attempt. The pace of the upstream backs off; the entry need not.
        Certainty::NotSent => (None, pause.unwrap_or_default()),
        Certainty::SentUnknown => {
            let wait = backoff(attempt, policy.min_backoff, policy.max_backoff, chance);
            (Some(attempt), wait.max(policy.late_window))
        }
    };
    let verdict = again(policy, counted, certainty, error.to_string(), None, now, wait);
    Ending { verdict, felt, pause }
}

/// Another time, unless that was the last, or nothing would protect it. `attempt` is none when it does not count.
fn again(
    policy: &Policy,
    attempt: Option<u32>,
    certainty: Certainty,
    why: String,
    answer: Option<KeptAnswer>,
    now: UnixMillis,
    wait: Duration,
) -> Verdict {
    let not_before = now.plus(wait);
    if certainty == Certainty::SentUnknown && !policy.protects(not_before) {
        let why =
            format!("{why}; it may have been applied, and the app would not notice a duplicate");
        return Verdict::Hold { reason: HeldReason::Unclear, certainty, why, answer };
    }
    match attempt {
        Some(attempt) if attempt >= policy.max_attempts => {
            let why = format!("{why}; that was attempt {attempt} of {}", policy.max_attempts);
            Verdict::Hold { reason: HeldReason::Attempts, certainty, why, answer }
        }
        _ => Verdict::Again { not_before, certainty, counts: attempt.is_some(), why, answer },
    }
}

/// The app's answer as it is kept in the history: bounded.
fn kept(answer: &WholeAnswer) -> KeptAnswer {
    let mut room = KEPT_HEADERS;
    let headers = answer.headers.iter().map_while(|(name, value)| {
        room = room.checked_sub(name.as_str().len() + value.len())?;
        Some((name.as_str().to_owned(), bytes::Bytes::copy_from_slice(value.as_bytes())))
    });
    KeptAnswer {
        status: answer.status.as_u16(),
        headers: headers.collect(),
        body: answer.body.slice(..answer.body.len().min(KEPT_BODY)),
    }
}

/// Most bytes of an answer's headers and body that go into the history.
const KEPT_HEADERS: usize = 16 << 10;
const KEPT_BODY: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000_000);

    fn policy(protected: bool) -> Policy {
        Policy {
            protected_until: protected.then(|| NOW.plus(Duration::from_secs(3600))),
            max_attempts: 3,
            min_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            late_window: Duration::from_secs(20),
        }
    }

    fn answer(status: u16) -> WholeAnswer {
        WholeAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
            truncated: false,
        }
    }

    fn answered(policy: &Policy, class: Class, answer: &WholeAnswer, attempt: u32) -> Ending {
        let judged = Judged { class, why: "so".into() };
        after_answer(policy, judged, answer, attempt, NOW, &mut Chance::seeded(1))
    }

    fn failed(policy: &Policy, error: &UpstreamError, attempt: u32) -> Ending {
        after_error(policy, error, attempt, NOW, &mut Chance::seeded(1))
    }

    fn timeout() -> UpstreamError {
        UpstreamError::Timeout { endpoint: "app:1".into(), limit: Duration::from_secs(15) }
    }

    fn refused() -> UpstreamError {
        UpstreamError::Connect { endpoint: "app:1".into(), cause: "refused".into() }
    }

    #[test]
    fn final_answers_close_and_keep_the_answer() {
        for (class, outcome, felt) in [
            (Class::Success, Outcome::Completed, Felt::Good),
            (Class::AlreadyApplied, Outcome::AlreadyApplied, Felt::Good),
            (Class::Declined, Outcome::Declined, Felt::Neutral),
        ] {
            let ending = answered(&policy(false), class, &answer(200), 1);
            assert_eq!(ending.felt, felt);
            let Verdict::Close { outcome: closed, answer: Some(kept), .. } = ending.verdict else {
                panic!("{class:?}")
            };
            assert_eq!((closed, kept.body.as_ref()), (outcome, b"{}".as_ref()));
        }
    }

    #[test]
    fn what_may_have_been_applied_goes_again_only_under_protection() {
        let unknown = Class::Again(Certainty::SentUnknown);
        let ending = answered(&policy(false), unknown, &answer(500), 1);
        assert!(matches!(ending.verdict, Verdict::Hold { reason: HeldReason::Unclear, .. }));
        let ending = answered(&policy(true), unknown, &answer(500), 1);
        assert!(matches!(ending.verdict, Verdict::Again { counts: true, .. }));
        let ending = failed(&policy(false), &timeout(), 1);
        assert!(matches!(ending.verdict, Verdict::Hold { reason: HeldReason::Unclear, .. }));
        assert_eq!(ending.felt, Felt::Bad);

        // A no leaves nothing behind: again, protected or not.
        let ending = answered(&policy(false), Class::Again(Certainty::NotSent), &answer(429), 1);
        assert!(matches!(ending.verdict, Verdict::Again { counts: true, .. }));
    }

    #[test]
    fn an_attempt_that_would_fall_out_of_the_window_is_held() {
        let short =
            Policy { protected_until: Some(NOW.plus(Duration::from_secs(10))), ..policy(true) };
        let ending = failed(&short, &timeout(), 1);
        assert!(matches!(ending.verdict, Verdict::Hold { reason: HeldReason::Unclear, .. }));
    }

    #[test]
    fn the_last_attempt_is_held_and_not_sent_is_none() {
        let refusal = Class::Again(Certainty::NotSent);
        let ending = answered(&policy(true), refusal, &answer(429), 3);
        assert!(matches!(ending.verdict, Verdict::Hold { reason: HeldReason::Attempts, .. }));
        let ending = failed(&policy(true), &timeout(), 3);
        assert!(matches!(ending.verdict, Verdict::Hold { reason: HeldReason::Attempts, .. }));
        for attempt in [1, 3, 300] {
            let ending = failed(&policy(false), &refused(), attempt);
            let Verdict::Again { counts, certainty, not_before, .. } = ending.verdict else {
                panic!()
            };
            assert_eq!((counts, certainty, not_before), (false, Certainty::NotSent, NOW));
            assert_eq!(ending.felt, Felt::Bad);
        }
    }

    #[test]
    fn no_second_send_while_the_app_may_still_work_on_the_first() {
        let late = NOW.plus(Duration::from_secs(20));
        let not_before = |ending: Ending| match ending.verdict {
            Verdict::Again { not_before, .. } => not_before,
            other => panic!("{other:?}"),
        };
        let unknown = Class::Again(Certainty::SentUnknown);
        assert!(not_before(failed(&policy(true), &timeout(), 1)) >= late);
        assert!(not_before(answered(&policy(true), unknown, &answer(504), 1)) >= late);
        assert!(not_before(answered(&policy(true), unknown, &answer(500), 1)) < late);
    }

    #[test]
    fn retry_after_pauses_the_upstream_and_the_entry() {
        let mut busy = answer(503);
        busy.headers.insert("retry-after", HeaderValue::from_static("40"));
        let ending = answered(&policy(true), Class::Again(Certainty::SentUnknown), &busy, 1);
        assert_eq!(ending.pause, Some(Duration::from_secs(40)));
        let Verdict::Again { not_before, .. } = ending.verdict else { panic!() };
        assert!(not_before >= NOW.plus(Duration::from_secs(40)));
    }

    #[test]
    fn an_open_breaker_is_waited_for_and_blames_nobody() {
        let error = UpstreamError::BreakerOpen { retry_after: Duration::from_secs(2) };
        let ending = failed(&policy(false), &error, 1);
        assert_eq!((ending.felt, ending.pause), (Felt::Neutral, Some(Duration::from_secs(2))));
    }

    #[test]
    fn only_answers_that_say_not_now_slow_the_pace_down() {
        let refusal = Class::Again(Certainty::NotSent);
        for (status, felt) in [
            (408, Felt::Bad),
            (409, Felt::Neutral),
            (422, Felt::Neutral),
            (429, Felt::Bad),
            (503, Felt::Bad),
        ] {
            assert_eq!(answered(&policy(true), refusal, &answer(status), 1).felt, felt, "{status}");
        }
    }

    #[test]
    fn what_is_kept_of_an_answer_is_bounded() {
        let mut huge = answer(200);
        huge.body = Bytes::from(vec![b'x'; KEPT_BODY + 1]);
        for _ in 0..3 {
            huge.headers.append("x-long", HeaderValue::from_bytes(&[b'y'; 8000]).unwrap());
        }
        let kept = kept(&huge);
        assert_eq!((kept.body.len(), kept.headers.len()), (KEPT_BODY, 2));
    }
}
