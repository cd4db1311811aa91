//! Records of failed exchanges as they are shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{At, Field, word};
use crate::{
    admin::text,
    record::{Noted, Record, Records, Redacted},
};

/// The records there are, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordList {
    pub records: Vec<RecordSummary>,
    /// Failed exchanges that were not kept, because there were too many in a second or the list was in use.
    pub dropped: u64,
}

/// One failed exchange, without what was said in it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordSummary {
    pub id: u64,
    pub at: At,
    pub route: String,
    pub upstream: String,
    pub request_id: String,
    pub method: String,
    /// Absent: there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    pub cause: String,
    /// `not_sent` or `sent_unknown`.
    pub certainty: String,
    pub took_ms: u64,
}

/// One failed exchange. Credentials, cookies and card data were never kept.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordDetail {
    #[serde(flatten)]
    pub summary: RecordSummary,
    pub request: RecordedMessage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<RecordedMessage>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordedMessage {
    /// Of a request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    pub headers: Vec<Field>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Why there is no body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_body: Option<String>,
}

impl RecordList {
    pub(crate) fn of(records: &Records) -> Self {
        let [too_many, busy, _] = records.dropped();
        Self {
            records: records.all().iter().map(|record| RecordSummary::of(record)).collect(),
            dropped: too_many.1 + busy.1,
        }
    }
}

impl RecordSummary {
    fn of(record: &Record) -> Self {
        Self {
            id: record.id,
            at: At(record.at),
            route: record.route.to_string(),
            upstream: record.upstream.to_string(),
            request_id: text::line(&record.request_id),
            method: text::line(record.method.as_str()),
            status: record.answer.as_ref().map(|(status, _)| status.as_u16()),
            cause: text::line(&record.cause),
            certainty: word(&record.certainty),
            took_ms: u64::try_from(record.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

impl RecordDetail {
    pub(crate) fn of(record: &Record) -> Self {
        Self {
            summary: RecordSummary::of(record),
            request: RecordedMessage::of(&record.request),
            answer: record.answer.as_ref().map(|(_, answer)| RecordedMessage::of(answer)),
        }
    }
}

impl RecordedMessage {
    fn of(message: &Redacted) -> Self {
        let field = |(name, value): &(String, String)| Field {
            name: text::line(name),
            value: text::line(value),
        };
        let (body, no_body) = match &message.body {
            Noted::Kept(body) => (Some(text::block(body)), None),
            Noted::Left(why) => (None, Some((*why).to_owned())),
        };
        Self {
            target: text::line(&message.target),
            headers: message.headers.iter().map(field).collect(),
            body,
            no_body,
        }
    }
}
