//! The honest error of page and API: `application/problem+json` (RFC 9457), each with what to do about it.

use std::time::Duration;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Request, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use filters::problem::PROXY_STATUS;
use http_body_util::Full;
use serde::{Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{admin::view, egress::ChangeFault, store::StoreError};

/// See the module.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    pub status: u16,
    pub title: String,
    pub detail: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("Error").to_owned();
        Self { status: status.as_u16(), title, detail: detail.into() }
    }

    /// What the caller asked for makes no sense.
    pub(crate) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(crate) fn no_such(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("no such {what}"))
    }

    /// Not possible in the present state.
    pub(crate) fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(crate) fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut problem =
            filters::problem::Problem::new(self.code(), self.title).detail(self.detail);
        if self.status == StatusCode::SERVICE_UNAVAILABLE.as_u16() {
            problem = problem.retry_after(Duration::from_secs(5));
        }
        let mut response: Response = problem.into_response::<Full<Bytes>>().map(Body::new);
        response.headers_mut().remove(PROXY_STATUS); // nothing was proxied here
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound => Self::no_such("entry"),
            StoreError::Moved(state) => Self::conflict(format!(
                "the entry is {} now: look at it again before you decide",
                view::word(state)
            )),
            StoreError::NotAccepting(_)
            | StoreError::Failed(_)
            | StoreError::Damaged(_)
            | StoreError::Busy => Self::unavailable(error.to_string()),
            StoreError::InUse(_) | StoreError::Newer(..) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<ChangeFault> for Problem {
    fn from(fault: ChangeFault) -> Self {
        match fault {
            ChangeFault::NoSuch => Self::no_such("egress proxy"),
            ChangeFault::Proxy(fault) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, fault.to_string())
            }
            ChangeFault::Store(error) => error.into(),
            ChangeFault::Retired
            | ChangeFault::Exists
            | ChangeFault::Another
            | ChangeFault::Full(_) => Self::conflict(fault.to_string()),
        }
    }
}

/// A JSON body; anything else is a problem that says what is wrong.
pub(crate) struct Sent<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send the body as content-type: application/json",
            )),
            Err(rejection) => Err(Problem::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// A query string; anything else is a problem that says what is wrong.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> axum::extract::FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        state: &S,
    ) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => Err(Problem::bad(rejection.body_text())),
        }
    }
}

pub(crate) async fn not_found() -> Problem {
    Problem::no_such("page")
}

pub(crate) async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "changes are made by POST, everything else by GET")
}
