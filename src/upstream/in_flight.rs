//! A try that one of several endpoints has in hand: counted while it lasts, and told to the endpoint when it is known how
//! it went. One that ends unsaid (its client left) says only how long it took.

use http::StatusCode;
use tokio::time::Instant;

use super::{
    Connections, Upstream, UpstreamError,
    endpoint::{Chosen, Turn},
    request_body::Progress,
};

/// See the module. It lasts until the answer's body was read.
pub(super) struct InFlight {
    home: Connections,
    chosen: Chosen,
    began: Instant,
    told: bool,
}

impl InFlight {
    /// None where there is no choice: nothing is counted then.
    pub(super) fn begin(home: &Connections, chosen: Chosen, progress: &Progress) -> Option<Self> {
        let endpoints = &home.upstream().endpoints;
        if !endpoints.are_several() {
            return None;
        }
        endpoints.begin(chosen.endpoint);
        let began = Instant::now();
        progress.set_on(chosen, began);
        Some(Self { home: home.clone(), chosen, began, told: false })
    }

    /// The head of an answer came. What a gateway says of an app that is not there is a failure.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.told = true;
        let upstream = self.home.upstream();
        if is_gateways(status) {
            upstream.endpoint_failed(self.chosen, self.began, GATEWAY);
        } else {
            upstream.endpoint_answered(self.chosen.endpoint, self.began);
        }
    }

    /// There was no answer. Only what the app is to blame for counts against the endpoint.
    pub(super) fn failed(&mut self, error: &UpstreamError) {
        if error.blames_the_app() {
            self.told = true;
            self.home.upstream().endpoint_failed(self.chosen, self.began, &error.to_string());
        }
    }

    /// The answer began and did not end.
    pub(super) fn broke_off(&mut self, cause: &str) {
        self.home.upstream().endpoint_failed(self.chosen, self.began, cause);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let upstream = self.home.upstream();
        upstream.endpoints.end(self.chosen.endpoint);
        if !self.told {
            upstream.endpoints.void(&upstream.config, self.chosen, self.began);
        }
    }
}

/// A gateway in front of an app says so when the app is not there; a 500 is the app's own.
pub(super) fn is_gateways(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    )
}

pub(super) const GATEWAY: &str = "it answers 502, 503 or 504";

impl Upstream {
    pub(super) fn endpoint_answered(&self, at: usize, began: Instant) {
        self.turned(at, self.endpoints.answered(&self.config, at, began));
    }

    pub(super) fn endpoint_failed(&self, chosen: Chosen, began: Instant, cause: &str) {
        let turn = self.endpoints.failed(&self.config, chosen, began, cause);
        self.turned(chosen.endpoint, turn);
    }

    /// A health question to one endpoint was answered, or not.
    pub(super) fn endpoint_asked(&self, at: usize, answered: bool) {
        self.turned(at, self.endpoints.asked(&self.config, at, answered));
    }

    /// The deadline is over: whoever has the request in hand did not answer in time, and nobody else is tried.
    pub(super) fn timed_out(
        &self,
        progress: &Progress,
        limit: std::time::Duration,
    ) -> UpstreamError {
        progress.set_over();
        let endpoint = match progress.on() {
            Some((chosen, began)) => {
                self.endpoint_failed(chosen, began, &format!("no answer within {limit:?}"));
                self.endpoints.get(chosen.endpoint).authority.clone()
            }
            None => self.name.to_string(),
        };
        UpstreamError::Timeout { endpoint, limit }
    }

    fn turned(&self, at: usize, turn: Option<Turn>) {
        let Some(turn) = turn else { return };
        let (upstream, endpoint) = (&*self.name, &self.endpoints.get(at).authority);
        match turn {
            Turn::Ejected => {
                let cause = self.endpoints.get(at).cause();
                tracing::warn!(upstream, endpoint, cause, "endpoint ejected");
            }
            Turn::Probation => tracing::info!(upstream, endpoint, "endpoint on probation"),
            Turn::Back => tracing::info!(upstream, endpoint, "endpoint is back"),
        }
    }
}
