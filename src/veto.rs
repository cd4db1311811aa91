//! The app's own no to being stood in for, on one route: for good or for a time, said in a header of its answers.
//!
//! Believed from answers of the route's own app only, stripped from what clients get, remembered over restarts. It takes
//! back no promise: what is stored is kept and replayed.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderName, StatusCode};
use serde::{Deserialize, Serialize};

use crate::{
    router::{Route, Routes},
    store::{Store, StoreError},
    time::UnixMillis,
    upstream::at_most,
};

/// `never`, `none`, or a number of seconds.
pub const VETO: HeaderName = HeaderName::from_static("standin-veto");

/// What the app of a route has said; one for each route and its app, kept over reloads.
#[derive(Debug)]
pub struct Veto {
    upstream: Arc<str>,
    state: Mutex<State>,
    /// Something was said, whether or not it still holds. Most routes never look further.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    said: Option<Said>,
    /// What was written down last, as it holds after a restart.
    written: Option<Said>,
    /// When the store did not take it.
    failed: Option<UnixMillis>,
}

/// A no, and how long it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub since: UnixMillis,
    /// None: until the app takes it back.
    pub until: Option<UnixMillis>,
}

/// As the store remembers it.
#[derive(Serialize, Deserialize)]
struct Remembered {
    upstream: String,
    said: Option<Said>,
}

/// By their strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    None,
    For(Duration),
    Never,
}

/// Under this prefix and the name of the route the store remembers it.
const REMEMBERED: &str = "veto/";
/// No time is longer; one that is, is cut.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
/// An end is written down with so much more, at least, so that an app which says the same in every answer is not written
/// down each time.
const LEAST_SLACK: Duration = Duration::from_secs(2);
/// How long an answer waits for the store to write down a no that is news.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// After a failure the next answer tries again no sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the header out of an answer of the route's app, and note of it. What is news is on disk before the answer goes on,
/// unless the store takes too long.
pub async fn hear(route: &Route, store: &Store, status: StatusCode, headers: &mut HeaderMap) {
    let Some(word) = take(headers) else { return };
    if route.config.stand_in.is_none()
        || route.upstream.own_error_of_a_proxy(status, headers).is_some()
    {
        return;
    }
    let veto = &route.veto;
    let Some(said) = veto.heard(&route.name, word, UnixMillis::now()) else { return };
    let why = match at_most(LONGEST_WAIT, veto.write_down(&route.name, store, said)).await {
        Some(Ok(())) => return,
        Some(Err(error)) => error.to_string(),
        None => format!("the store took more than {LONGEST_WAIT:?}"),
    };
    tracing::warn!(route = &*route.name, why, "the app's veto may be forgotten at a restart");
    veto.state().failed = Some(UnixMillis::now());
}

/// Of an answer of somebody else, whose word on it does not count.
pub fn strip(headers: &mut HeaderMap) {
    headers.remove(VETO);
}

/// Takes up what was said before the start, where the route still has the same app.
pub async fn recall(routes: &Routes, store: &Store) {
    for (name, text) in store.recall_all(REMEMBERED).await.unwrap_or_default() {
        let route = name.strip_prefix(REMEMBERED).and_then(|name| routes.by_name(name));
        let remembered = serde_json::from_str::<Remembered>(&text);
        if let (Some(route), Ok(Remembered { upstream, said })) = (route, remembered)
            && *upstream == *route.veto.upstream
        {
            *route.veto.state() = State { said, written: said, failed: None };
            route.veto.any.store(said.is_some(), Ordering::Release);
        }
    }
}

impl Veto {
    pub fn new(upstream: &Arc<str>) -> Self {
        let (state, any) = (Mutex::default(), AtomicBool::new(false));
        Self { upstream: Arc::clone(upstream), state, any }
    }

    /// The same over a reload, unless the route has another app now.
    pub fn of(upstream: &Arc<str>, before: Option<&Arc<Self>>) -> Arc<Self> {
        let same = before.filter(|before| before.upstream == *upstream);
        same.map_or_else(|| Arc::new(Self::new(upstream)), Arc::clone)
    }

    /// Whether it is not to be stood in for.
    pub fn holds_now(&self) -> bool {
        self.any.load(Ordering::Acquire) && self.now(UnixMillis::now()).is_some()
    }

    /// What holds now.
    pub fn now(&self, now: UnixMillis) -> Option<Said> {
        self.state().said.filter(|said| said.holds(now))
    }

    /// The last word counts. Gives what is to be written down, if that is not what is there.
    fn heard(&self, route: &str, word: Word, now: UnixMillis) -> Option<Option<Said>> {
        let mut state = self.state();
        let before = state.said.filter(|said| said.holds(now));
        let since = before.map_or(now, |said| said.since);
        let (until, slack) = match word {
            Word::None => (None, Duration::ZERO),
            Word::Never => (None, Duration::ZERO),
            Word::For(time) => (Some(now.plus(time)), LEAST_SLACK.max(time / 10)),
        };
        state.said = (word != Word::None).then_some(Said { since, until });
        self.any.store(state.said.is_some(), Ordering::Release);
        if before.map(|said| said.until.is_some()) != state.said.map(|said| said.until.is_some()) {
            tracing::info!(route, "the app says whether it may be stood in for: {word:?}");
        }
        let written = state.written.filter(|said| said.holds(now));
        let same = match (state.said.map(|said| said.until), written.map(|said| said.until)) {
            (Some(Some(end)), Some(Some(written))) => end <= written && written <= end.plus(slack),
            (end, written) => end == written,
        };
        let again = state.failed.is_some_and(|at| now.since(at) >= PATIENCE);
        if (same || state.failed.is_some()) && !again {
            return None;
        }
        state.failed = None;
        state.written =
            state.said.map(|said| Said { until: said.until.map(|end| end.plus(slack)), ..said });
        Some(state.written)
    }

    /// Until what is on disk is what was said last: another thread may have written an earlier word behind a later one.
    async fn write_down(
        &self,
        route: &str,
        store: &Store,
        mut said: Option<Said>,
    ) -> Result<(), StoreError> {
        let name = format!("{REMEMBERED}{route}");
        loop {
            let remembered = Remembered { upstream: self.upstream.to_string(), said };
            let text = serde_json::to_string(&remembered).unwrap_or_default();
            store.remember(&name, &text).await?;
            let last = self.state().written;
            if last == said {
                return Ok(());
            }
            said = last;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    fn holds(self, now: UnixMillis) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// The strictest of the words in the header, which is gone then; unreadable ones say nothing.
fn take(headers: &mut HeaderMap) -> Option<Word> {
    if !headers.contains_key(VETO) {
        return None;
    }
    let texts = headers.get_all(VETO).iter().filter_map(|value| value.to_str().ok());
    let word = texts.flat_map(|text| text.split(',')).filter_map(word).max();
    headers.remove(VETO);
    word
}

fn word(text: &str) -> Option<Word> {
    match text.trim() {
        word if word.eq_ignore_ascii_case("never") => Some(Word::Never),
        word if word.eq_ignore_ascii_case("none") => Some(Word::None),
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // More digits than fit are more than the longest time.
            let time = digits.parse().map_or(LONGEST, Duration::from_secs).min(LONGEST);
            Some(if time.is_zero() { Word::None } else { Word::For(time) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn veto() -> Veto {
        Veto::new(&"app".into())
    }

    fn hear(veto: &Veto, text: &str, now: i64) -> Option<Option<Said>> {
        veto.heard("orders", word(text).unwrap(), UnixMillis(now))
    }

    fn said(until: Option<i64>) -> Option<Said> {
        Some(Said { since: NOW, until: until.map(UnixMillis) })
    }

    #[test]
    fn a_no_holds_for_its_time_or_until_it_is_taken_back() {
        let veto = veto();
        assert_eq!(hear(&veto, "600", NOW.0), Some(said(Some(1_660_000))), "a tenth more on disk");
        assert_eq!(veto.now(NOW), said(Some(1_600_000)));
        assert_eq!(veto.now(UnixMillis(1_600_000)), None);
        assert_eq!(hear(&veto, "never", NOW.0), Some(said(None)));
        assert_eq!(veto.now(UnixMillis(i64::MAX)), said(None));
        assert_eq!(hear(&veto, "none", NOW.0), Some(None));
        assert_eq!(veto.now(NOW), None);
        assert_eq!(hear(&veto, "none", NOW.0), None, "that is no news");
    }

    #[test]
    fn the_strictest_word_counts_and_an_unreadable_one_says_nothing() {
        let taken = |values: &[&str]| {
            let values = values.iter().map(|value| (VETO, value.parse().unwrap()));
            let mut headers: HeaderMap = values.collect();
            let word = take(&mut headers);
            assert!(headers.is_empty(), "clients do not see it");
            word
        };
        let seconds = |seconds| Some(Word::For(Duration::from_secs(seconds)));
        assert_eq!(taken(&["none", "Never", "5"]), Some(Word::Never));
        assert_eq!(taken(&["5, 7"]), seconds(7));
        assert_eq!(taken(&["soon", "-1", "1.5", "", "+5"]), None);
        assert_eq!(taken(&["soon", "9"]), seconds(9));
        assert_eq!(taken(&["0"]), Some(Word::None));
        assert_eq!(taken(&["99999999999999999999999999"]), Some(Word::For(LONGEST)));
        assert_eq!(taken(&[]), None);
    }

    #[test]
    fn an_app_that_says_it_in_every_answer_is_not_written_down_each_time() {
        let veto = veto();
        let written = (0..600).filter(|at| hear(&veto, "600", NOW.0 + at * 1000).is_some()).count();
        assert!((9..=11).contains(&written), "{written} times in ten minutes");
        let end = veto.now(NOW).unwrap().until;
        assert_eq!(end, Some(UnixMillis(NOW.0 + 599_000 + 600_000)), "but it holds");
        assert!(hear(&veto, "5", NOW.0 + 599_000).is_some(), "one that is much shorter is news");
    }

    #[test]
    fn what_the_store_did_not_take_is_tried_again_but_not_by_every_answer() {
        let veto = veto();
        assert!(hear(&veto, "never", NOW.0).is_some());
        veto.state().failed = Some(NOW);
        assert_eq!(hear(&veto, "never", NOW.0 + 9_000), None);
        assert_eq!(hear(&veto, "60", NOW.0 + 9_500), None);
        assert_eq!(hear(&veto, "never", NOW.0 + 10_000), Some(said(None)));
        assert_eq!(hear(&veto, "never", NOW.0 + 10_001), None);
    }

    #[test]
    fn another_app_of_the_route_has_said_nothing() {
        let before = Arc::new(veto());
        hear(&before, "never", NOW.0);
        assert!(Veto::of(&"app".into(), Some(&before)).now(NOW).is_some());
        assert!(Veto::of(&"other".into(), Some(&before)).now(NOW).is_none());
    }
}
