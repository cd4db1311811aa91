//! Which entries are asked for: reads what a query string says, or says what is wrong with it.

use std::{str::FromStr as _, time::Duration};

use serde::Deserialize;
use utoipa::IntoParams;

use super::{problem::Problem, view::from_word};
use crate::{
    config::units,
    store::{PageQuery, Seq},
    time::UnixMillis,
};

/// Which entries are listed.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
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
        let number = |name: &str, text: &str| match text.trim() {
            "" => Ok(None),
            text => i64::from_str(text)
                .map(Some)
                .map_err(|_| Problem::bad(format!("`{name}` is not a number"))),
        };
        let limit = number("limit", &self.limit)?.unwrap_or(50).clamp(1, 200);
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
            before: number("before", &self.before)?.map(Seq),
            limit: u32::try_from(limit).unwrap_or(50),
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

/// Reads `"1h"`, or nothing.
pub(crate) fn duration(name: &str, text: &str) -> Result<Option<Duration>, Problem> {
    match text.trim() {
        "" => Ok(None),
        text => units::parse_duration(text)
            .map(Some)
            .map_err(|why| Problem::bad(format!("{name}: {why}"))),
    }
}

fn one_of<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<Option<T>, Problem> {
    match text.trim() {
        "" => Ok(None),
        text => from_word(text)
            .map(Some)
            .ok_or_else(|| Problem::bad(format!("`{text}` is not a {name} that there is"))),
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
            limit: "1000".into(),
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
}
