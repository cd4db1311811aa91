//! Stored requests and answers as they are shown: credentials hidden, bodies for people.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    admin::text,
    store::{KeptAnswer, StoredRequest},
};

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Field {
    pub name: String,
    pub value: String,
}

/// The stored request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    pub client_ip: String,
    /// In order; credentials are `(kept, not shown)`.
    pub headers: Vec<Field>,
    pub body: BodyView,
    pub trailers: Vec<Field>,
}

/// An answer: the one the client got, or the app's to an attempt.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AnswerView {
    pub status: u16,
    pub headers: Vec<Field>,
    pub body: BodyView,
}

/// A body for people; the bytes themselves have an address of their own.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct BodyView {
    /// Its size in bytes.
    pub bytes: u64,
    /// How it is shown: `json`, `form`, `text`, `hex` or `empty`.
    pub shown_as: String,
    pub text: String,
    /// Whether `text` is only its beginning.
    pub truncated: bool,
}

impl RequestView {
    pub(super) fn of(request: &StoredRequest) -> Self {
        Self {
            client_ip: text::line(&request.client_ip),
            headers: fields(&request.headers),
            body: BodyView::of(&request.body, &request.headers),
            trailers: fields(&request.trailers),
        }
    }
}

impl AnswerView {
    pub(crate) fn of(answer: &KeptAnswer) -> Self {
        Self {
            status: answer.status,
            headers: fields(&answer.headers),
            body: BodyView::of(&answer.body, &answer.headers),
        }
    }
}

impl BodyView {
    fn of(body: &Bytes, headers: &[(String, Bytes)]) -> Self {
        let content_type = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("content-type"))
            .map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase())
            .unwrap_or_default();
        let shown = text::show_body(body, &content_type);
        Self {
            bytes: body.len() as u64,
            shown_as: shown.kind.to_owned(),
            text: shown.text,
            truncated: shown.truncated,
        }
    }
}

fn fields(headers: &[(String, Bytes)]) -> Vec<Field> {
    headers
        .iter()
        .map(|(name, value)| Field {
            name: text::line(name),
            value: text::header_value(name, value),
        })
        .collect()
}
