//! Which entries are asked for: reads what a query string says, or says what is wrong with it.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IntoDeserializer, value},
};
use utoipa::IntoParams;

use super::problem::Problem;
use crate::{
    config::units,
    store::{PageQuery, Seq},
    time::UnixMillis,
};

/// Which entries are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Only this route.
    pub(crate) route: String,
    /// `stored`, `leased`, `sending`, `held` or `closed`.
    pub(crate) state: String,
    /// `completed`, `already_applied`, `declined` or `written_off`.
    pub(crate) outcome: String,
    /// `attempts`, `expired`, `credentials`, `unclear`, `unanswered`, `route_gone`, `damaged` or `by_person`.
    pub(crate) held: String,
    /// Of declined ones: `yes` or `no`, whether a person has followed them up.
    pub(crate) followed_up: String,
    /// A receipt, a label's value, a request id or a key: exact.
    pub(crate) search: String,
    /// Received from then on: RFC 3339, `2026-11-22T14:02` (UTC), `2026-11-22`, or a time ago: `2h`, `7d`.
    pub(crate) from: String,
    /// Received before then; as `from`.
    pub(crate) until: String,
    /// Older than the entry of this number (`next` of the page before).
    pub(crate) before: String,
    /// 1 to 200; 50 when absent.
    pub(crate) limit: String,
}

impl Filter {
    pub(crate) fn query(&self, now: UnixMillis) -> Result<PageQuery, Problem> {
        let text = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let numbers_of_entries = 1..=i64::MAX;
        Ok(PageQuery {
            route: text(&self.route),
            state: one_of("state", &self.state)?,
            outcome: one_of("outcome", &self.outcome)?,
            held: one_of("held", &self.held)?,
            followed_up: match self.followed_up.trim() {
                "" => None,
                "yes" => Some(true),
                "no" => Some(false),
                _ => return Err(Problem::bad("`followed_up` is `yes` or `no`")),
            },
            search: text(&self.search),
            received_from: moment("from", &self.from, now)?,
            received_until: moment("until", &self.until, now)?,
            before: number("before", &self.before, numbers_of_entries)?.map(Seq),
            limit: number("limit", &self.limit, 1..=200)?.unwrap_or(50),
        })
    }

    /// Whether anything but the place in the list is asked for.
    pub(crate) fn narrows(&self) -> bool {
        let Self { route, state, outcome, held, followed_up, search, from, until, .. } = self;
        [route, state, outcome, held, followed_up, search, from, until]
            .iter()
            .any(|text| !text.trim().is_empty())
    }
}

/// Reads a number, or nothing. One out of its range is a mistake: whoever asks for more would take a part for all.
pub(crate) fn number<T>(
    name: &str,
    text: &str,
    range: RangeInclusive<T>,
) -> Result<Option<T>, Problem>
where
    T: FromStr + PartialOrd + Display,
{
    match text.trim() {
        "" => Ok(None),
        text => {
            text.parse().ok().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
                let (least, most) = range.into_inner();
                Problem::bad(format!("`{name}` is a number from {least} to {most}"))
            })
        }
    }
}

/// Reads `"1h"`, or nothing.
pub(crate) fn duration(name: &str, text: &str) -> Result<Option<Duration>, Problem> {
    match text.trim() {
        "" => Ok(None),
        text => units::parse_duration(text)
            .map(Some)
            .map_err(|why| Problem::bad(format!("{name}: {why}"))),
    }
}

/// Reads one of a list of words, or nothing.
pub(crate) fn one_of<T: DeserializeOwned>(name: &str, text: &str) -> Result<Option<T>, Problem> {
    match text.trim() {
        "" => Ok(None),
        text => {
            T::deserialize(text.into_deserializer()).map(Some).map_err(|error: value::Error| {
                // It knows them all: "unknown variant `x`, expected one of `a`, `b`".
                let error = error.to_string();
                let words = error.rsplit_once(", expected ").unwrap_or_default().1;
                Problem::bad(format!("`{text}` is not a `{name}` that there is: {words}"))
            })
        }
    }
}

fn moment(name: &str, text: &str, now: UnixMillis) -> Result<Option<UnixMillis>, Problem> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(ago) = units::parse_duration(text) {
        return Ok(Some(now.minus(ago)));
    }
    let zoned =
        [text.to_owned(), format!("{text}:00Z"), format!("{text}Z"), format!("{text}T00:00:00Z")];
    zoned
        .iter()
        .find_map(|text| text.parse::<jiff::Timestamp>().ok())
        .map(|at| Some(UnixMillis(at.as_millisecond())))
        .ok_or_else(|| {
            Problem::bad(format!("`{name}` is not a time: write 2026-11-22T14:02 (UTC) or 2h"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::State;

    const NOW: UnixMillis = UnixMillis(1_795_356_125_250);

    #[test]
    fn a_filter_is_read_or_says_what_is_wrong() {
        let filter = Filter {
            state: "held".into(),
            held: "route_gone".into(),
            search: " 7k3m-q2xd ".into(),
            from: "2h".into(),
            until: "2026-11-22T14:02".into(),
            limit: "200".into(),
            ..Filter::default()
        };
        let query = filter.query(NOW).unwrap();
        assert_eq!(query.state, Some(State::Held));
        assert_eq!(query.search.as_deref(), Some("7k3m-q2xd"));
        assert_eq!(query.received_from, Some(NOW.minus(Duration::from_secs(7200))));
        assert_eq!(query.received_until, Some(UnixMillis(1_795_356_120_000)));
        assert_eq!(query.limit, 200);
        assert!(filter.narrows() && !Filter::default().narrows());
        for bad in [
            Filter { state: "gone".into(), ..Filter::default() },
            Filter { from: "yesterday".into(), ..Filter::default() },
            Filter { before: "x".into(), ..Filter::default() },
            Filter { followed_up: "maybe".into(), ..Filter::default() },
        ] {
            assert_eq!(bad.query(NOW).unwrap_err().status, 400);
        }
    }

    #[test]
    fn a_word_that_there_is_not_is_told_with_those_that_there_are() {
        let why = |filter: Filter| filter.query(NOW).unwrap_err().detail;
        assert_eq!(
            why(Filter { state: "gone, expected `x`".into(), ..Filter::default() }),
            "`gone, expected `x`` is not a `state` that there is: one of `stored`, `leased`, `sending`, `held`, `closed`"
        );
        let outcome = why(Filter { outcome: "lost".into(), ..Filter::default() });
        assert!(
            outcome.ends_with("one of `completed`, `already_applied`, `declined`, `written_off`")
        );
        let held = why(Filter { held: "why".into(), ..Filter::default() });
        assert!(held.ends_with("`route_gone`, `damaged`, `by_person`"), "{held}");
    }
}
