//! The filters that every request passes, as tower layers: one filter, one file.
//!
//! A filter may read and change heads, refuse, count, and wrap bodies. It may not know stores, routes, configuration or
//! another filter: what it needs comes in by its constructor, and what another filter sets is an `Option`. Filters are
//! generic over body types, box nothing and spawn nothing. One that refuses asks of the answer's body type that it can be
//! made from `Full<Bytes>`; one that wraps bodies passes that ability on.

pub mod access_log;
pub mod catch_panic;
pub mod connection_headers;
pub mod forwarded;
pub mod in_flight_limit;
pub mod peer;
pub mod problem;
pub mod request_check;
pub mod request_id;

#[cfg(test)]
mod testing;
