//! One exchange as a row of tries: which endpoint is next, whether one more try is allowed, and which error is told.
//!
//! What was certainly not sent goes on, whatever its method. What may have been applied is sent again only if its method
//! is idempotent (RFC 9110, 9.2.2), its body can be read again and its client waits. The retry budget bounds both.

use http::{Response, header::UPGRADE};
use tokio::time::Instant;

use super::{
    Connections, UpstreamError,
    balance::Set,
    connection::Connection,
    in_flight::InFlight,
    pool::Wanted,
    request_body::{Outgoing, Progress},
};
use crate::store::Certainty;

/// Whether what may have been applied may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resend {
    Idempotent,
    /// Each sending is decided and recorded by the caller.
    Never,
}

/// On which connections a try may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    /// Only on a fresh one.
    pub(super) fresh: bool,
    /// On one, too, that may be cut: it may be sent twice.
    pub(super) twice: bool,
}

/// What a try came to where there is no answer: why, and whether it was on a kept connection.
pub(super) struct Failed {
    pub(super) error: UpstreamError,
    pub(super) kept: bool,
}

/// Tries at other endpoints that cost nothing from the budget, while nothing was sent: with one of three up, everything
/// goes through.
const FREE: u32 = 2;

impl Connections {
    /// Sends to one endpoint after another until one has answered. No deadline for the answer here.
    pub(super) async fn send_parts(
        &self,
        request: &mut Outgoing,
        progress: &Progress,
        resend: Resend,
    ) -> Result<(Response<()>, Connection), UpstreamError> {
        if let Some(lane) = &self.upstream().egress {
            return Box::pin(self.send_through(lane, None, request, progress)).await;
        }
        let is_idempotent =
            request.as_ref().is_some_and(|request| request.method().is_idempotent());
        let mut tries = Tries::new(self, resend == Resend::Idempotent && is_idempotent);
        self.0.budget.borrow_mut().earn();
        while let Some(chosen) = self.choose(&tries.tried) {
            let mut in_flight = InFlight::begin(self, chosen, progress);
            let how = How { fresh: tries.fresh, twice: tries.may_resend };
            match self.send_to(chosen.endpoint, request, progress, how).await {
                Ok((response, mut connection)) => {
                    if let Some(in_flight) = &mut in_flight {
                        in_flight.answered(response.status());
                    }
                    connection.set_in_flight(in_flight);
                    return Ok((response, connection));
                }
                Err(Failed { error, kept }) => {
                    if let Some(in_flight) = &mut in_flight {
                        in_flight.failed(&error);
                    }
                    let (certainty, worth) = (error.certainty(), is_worth_another(&error));
                    tries.note(error, chosen.endpoint, kept);
                    if request.is_none() || progress.is_over() || !tries.allows(certainty, worth) {
                        break;
                    }
                }
            }
        }
        Err(tries.told())
    }

    /// One try at one endpoint: on a kept connection, or else a fresh one.
    pub(super) async fn send_to(
        &self,
        endpoint: usize,
        request: &mut Outgoing,
        progress: &Progress,
        how: How,
    ) -> Result<(Response<()>, Connection), Failed> {
        let failed = |error| Failed { error, kept: false };
        // What is rare is in a box: a future is as large as the largest that it may wait for, and each request has one.
        if let Some(lane) = &self.upstream().egress {
            let sent = Box::pin(self.send_through(lane, Some(endpoint), request, progress)).await;
            *request = None;
            return sent.map_err(failed);
        }
        let (mut fresh, mut is_in_doubt) = (how.fresh, false);
        if !fresh && let Some(kept) = self.take_trusted(endpoint) {
            match self.send_on(kept, request, progress).await {
                // The app had closed it meanwhile and took nothing: a fresh connection will tell.
                Err(error) if request.is_some() && error.certainty() == Certainty::NotSent => {}
                Err(error) => return Err(Failed { error, kept: true }),
                Ok(answered) => return Ok(answered),
            }
        } else if !fresh
            && how.twice
            && request.as_ref().is_some_and(|asked| asked.body().again().is_some())
            && let Some(kept) = self.take_doubtful(endpoint)
        {
            match Box::pin(self.send_doubtful(kept, request, progress)).await {
                Err(error) if request.is_some() && error.certainty() == Certainty::NotSent => {}
                Err(error) => return Err(Failed { error, kept: true }),
                Ok(Some(answered)) => return Ok(answered),
                Ok(None) => is_in_doubt = true,
            }
            fresh = true;
        }
        match self.send_anew(endpoint, request, progress, fresh).await {
            Err(Failed { error, kept }) if is_in_doubt => {
                Err(Failed { error: self.after_silence(endpoint, error), kept })
            }
            sent => sent,
        }
    }

    /// Not on a connection that is kept for one exchange at a time, if it is to be `fresh`.
    async fn send_anew(
        &self,
        endpoint: usize,
        request: &mut Outgoing,
        progress: &Progress,
        fresh: bool,
    ) -> Result<(Response<()>, Connection), Failed> {
        let http1 = request.as_ref().is_some_and(|asked| asked.headers().contains_key(UPGRADE));
        let wanted = Wanted { fresh, http1 };
        let mut last = false;
        loop {
            let connection = Box::pin(self.connect(endpoint, wanted)).await;
            let connection = connection.map_err(|error| Failed { error, kept: false })?;
            let (kept, is_shared) = (connection.was_used(), connection.is_shared());
            match self.send_on(connection, request, progress).await {
                Ok(answered) => return Ok(answered),
                // A shared connection that was about to end, or was full: the next one, once.
                Err(error)
                    if is_shared
                        && !last
                        && request.is_some()
                        && error.certainty() == Certainty::NotSent =>
                {
                    last = true;
                }
                Err(error) => return Err(Failed { error, kept }),
            }
        }
    }

    /// It was sent before, on a connection that stayed silent: the app may have had it, whatever became of it since.
    fn after_silence(&self, endpoint: usize, error: UpstreamError) -> UpstreamError {
        if error.certainty() == Certainty::SentUnknown {
            return error;
        }
        UpstreamError::Reset {
            endpoint: self.upstream().endpoints.get(endpoint).authority.clone(),
            cause: format!("no answer on a kept one, and then: {error}"),
            sent: true,
        }
    }
}

impl Connections {
    /// Whether a request may be sent once more, to another app. What may have reached this one is paid for.
    pub fn allows_elsewhere(&self, certainty: Certainty) -> bool {
        let free = certainty == Certainty::NotSent;
        let allowed = free || self.0.budget.borrow_mut().spend(Instant::now());
        self.upstream().extra_tries.count(certainty, allowed);
        allowed
    }
}

struct Tries<'c> {
    home: &'c Connections,
    may_resend: bool,
    tried: Set,
    /// The only endpoint broke a kept connection: once more, on a fresh one.
    fresh: bool,
    others: u32,
    doubt: Option<UpstreamError>,
    ours: Option<UpstreamError>,
    last: Option<UpstreamError>,
}

impl<'c> Tries<'c> {
    fn new(home: &'c Connections, may_resend: bool) -> Self {
        Self {
            home,
            may_resend,
            tried: Set::default(),
            fresh: false,
            others: 0,
            doubt: None,
            ours: None,
            last: None,
        }
    }

    /// Whether one more try may follow such a failure; if so it is paid for.
    fn allows(&mut self, certainty: Certainty, worth: bool) -> bool {
        let upstream = self.home.upstream();
        let free = match certainty {
            Certainty::NotSent => self.others < FREE,
            Certainty::SentUnknown if self.may_resend && worth => false,
            Certainty::SentUnknown => return false,
        };
        if self.tried.len() >= upstream.endpoints.len() {
            return false;
        }
        self.others += 1;
        let allowed = free || self.home.0.budget.borrow_mut().spend(Instant::now());
        upstream.extra_tries.count(certainty, allowed);
        allowed
    }

    fn note(&mut self, error: UpstreamError, endpoint: usize, kept: bool) {
        let only = !self.home.upstream().endpoints.are_several();
        if only && kept && !self.fresh {
            self.fresh = true;
        } else {
            self.tried = self.tried.with(endpoint);
        }
        match (&error, error.certainty()) {
            (_, Certainty::SentUnknown) => _ = self.doubt.get_or_insert(error),
            (UpstreamError::Ourselves { .. }, _) => self.ours = Some(error),
            _ => self.last = Some(error),
        }
    }

    /// The worst of all tries: one that may have been applied, else our own trouble (no endpoint is known to be down
    /// where we could not even try).
    fn told(self) -> UpstreamError {
        self.doubt.or(self.ours).or(self.last).unwrap_or_else(|| UpstreamError::Ourselves {
            cause: "the upstream has no endpoint".to_owned(),
        })
    }
}

/// A broken connection may be one endpoint's trouble; a client's broken body, a deadline that is over, and an answer that
/// came and was none are not.
fn is_worth_another(error: &UpstreamError) -> bool {
    matches!(error, UpstreamError::Reset { .. })
}
