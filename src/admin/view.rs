//! What the API says and the page shows: plain data, made from the handles in one place. The command line reads the
//! same types back.

mod config;
mod egress;
mod endpoint;
mod entry;
mod message;
mod mode;
mod record;
mod route;
mod run;
mod sentence;
mod status;
mod switch;
mod tls;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    config::{ConfigStatus, ReloadView},
    egress::{EgressPoolView, EgressProxyView, EgressSourceView, EgressSummary, EgressView},
    endpoint::EndpointStatus,
    entry::{EntryDetail, EntryList, EntryView, HistoryView, Released},
    message::{AnswerView, BodyView, Field, RequestView},
    mode::{ModeView, ModesView},
    record::{RecordDetail, RecordList, RecordedMessage},
    route::{Answers, CapUse, RouteStatus, VetoView},
    run::{AuditView, Impact, RunList, RunStatus, VolumeView},
    sentence::{Sentence, Severity},
    status::{Status, StoreStatus, UpstreamStatus},
    switch::{BreakerStatus, SwitchView},
    tls::{CertificateView, TlsView},
};
pub(crate) use self::{
    route::{caps, counter},
    status::{role_word, tls_views},
};
use crate::time::UnixMillis;

/// A moment: RFC 3339 in UTC for programs, `2026-11-22 14:02:05 UTC` for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct At(pub UnixMillis);

impl At {
    pub fn iso(&self) -> String {
        self.0.to_string()
    }

    /// Hours and minutes if it is of the same UTC day as `now`, else the date too.
    pub fn short(&self, now: impl std::borrow::Borrow<UnixMillis>) -> String {
        let text = self.iso();
        let (Some(day), Some(time)) = (text.get(..10), text.get(11..16)) else { return text };
        if now.borrow().to_string().get(..10) == Some(day) {
            format!("{time} UTC")
        } else {
            format!("{day} {time} UTC")
        }
    }
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.iso();
        match (text.get(..10), text.get(11..19)) {
            (Some(day), Some(time)) => write!(f, "{day} {time} UTC"),
            _ => f.write_str(&text),
        }
    }
}

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(UnixMillis(at.as_millisecond())))
    }
}

/// `45 s`, `12 min`, `3 h 5 min`, `14 h`, `2 d`: as precise as a person needs.
pub fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..=99 => format!("{s} s"),
        100..=5999 => format!("{} min", s / 60),
        6000..=35_999 if !(s / 60).is_multiple_of(60) => {
            format!("{} h {} min", s / 3600, (s / 60) % 60)
        }
        6000..=172_799 => format!("{} h", s / 3600),
        _ => format!("{} d", s / 86_400),
    }
}

/// The word that a value has in JSON: `sent_unknown`, `held` …
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A value by its word in JSON.
pub(crate) fn from_word<T: serde::de::DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(word.to_owned())).ok()
}

/// A number with thin groups: `12 345`.
pub fn grouped(n: impl std::fmt::Display) -> String {
    let text = n.to_string();
    let (sign, digits) = text.strip_prefix('-').map_or(("", &*text), |digits| ("-", digits));
    let mut shown = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

/// `12.3 MiB`.
pub fn bytes(n: u64) -> String {
    bytesize::ByteSize(n).display().iec().to_string()
}

/// `1 entry`, `2 entries`.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_spans_read_well() {
        let at = At(UnixMillis(1_795_356_125_250));
        assert_eq!(at.to_string(), "2026-11-22 14:02:05 UTC");
        assert_eq!(at.short(UnixMillis(1_795_356_125_250)), "14:02 UTC");
        assert_eq!(at.short(UnixMillis(1_795_456_125_250)), "2026-11-22 14:02 UTC");
        assert_eq!(serde_json::from_str::<At>("\"2026-11-22T14:02:05.250Z\"").unwrap(), at);
        assert_eq!(serde_json::to_string(&at).unwrap(), "\"2026-11-22T14:02:05.250Z\"");
        let spans: Vec<String> =
            [45, 720, 11_100, 7200, 51_000, 187_200].map(|s| span(Duration::from_secs(s))).into();
        assert_eq!(spans, ["45 s", "12 min", "3 h 5 min", "2 h", "14 h", "2 d"]);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(-1_234_567), "-1\u{202f}234\u{202f}567");
        assert_eq!(grouped(123), "123");
    }
}
