//! standin keeps an app taking orders while the app is down.
//!
//! ```text
//!  downstream                                                                        upstream
//!  (the client)                                                                      (the app)
//!      │                                                                                 ▲
//!      ▼                                                                                 │
//!  listener ─► filter_chain ─► router ─► failover ─┬─ it answers ──────► upstream ───────┤
//!  accept,     filters, in     which     who       │                     endpoint,       │
//!  limits      one order       route     answers?  │                     breaker, health │
//!                                                  └─ it does not ─► stand_in            │
//!                                                                    risk → store → answer
//!                                                                             │          │
//!                                           replay ◄── lease, when it is back ┘          │
//!                                           pace, order ─────────────────────────────────┘
//!  admin: looks at all of it from an address of its own            cli: talks to admin
//! ```
//!
//! The way of a request in five files: `listener`, `filter_chain`, `failover` (and its `case`), `upstream`, `stand_in`.
//!
//! | the process | |
//! |---|---|
//! | [`cli`] | arguments → command → exit code |
//! | [`config`] | the file, parsed once and then trusted |
//! | [`server`] | builds every part once, runs them, drains them |
//! | [`reload`] | takes up a changed file while running |
//! | **the way of a request** | |
//! | [`listener`] | accepts, bounds what a client may cost |
//! | [`client_body`] | a request body as it comes from its client |
//! | [`filter_chain`] | the filters in order, a reason for each place |
//! | [`router`], [`canonical`] | which route; the path that routes are matched on |
//! | [`failover`] | who answers: the one decision |
//! | [`egress`] | pools of proxies through which an upstream is reached; off unless configured |
//! | [`upstream`] | one exchange with the app, and what it left behind |
//! | [`stand_in`] | assess → append → answer |
//! | [`store`] | keeps what was promised |
//! | **the way back** | |
//! | [`replay`] | from the store to the app, once it is back |
//! | [`mode`] | what people set: auto, forced, pass-through |
//! | [`record`] | failed exchanges, kept for support |
//! | [`veto`] | what the app says: not to be stood in for |
//! | [`admin`] | page, API, metrics, health |
//! | **small things that all may use** | |
//! | [`body`] | a body read strictly, or not at all |
//! | [`expr`], [`template`] | CEL and answers, compiled once and bounded |
//! | [`tls`] | certificates, read from files and read again |
//! | [`signature`] | by which the app knows a replay |
//! | [`turn`] | what a worker's sockets say leaves together when the worker's turn ends |
//! | [`telemetry`], [`time`], [`clocks`] | counters; the wall clock in milliseconds; whether it jumps |

pub mod admin;
pub mod body;
pub mod canonical;
pub mod cli;
pub mod client_body;
pub mod clocks;
pub mod config;
pub mod egress;
pub mod expr;
pub mod failover;
pub mod filter_chain;
pub mod listener;
pub mod mode;
pub mod record;
pub mod reload;
pub mod replay;
pub mod router;
pub mod server;
pub mod signature;
pub mod stand_in;
pub mod store;
pub mod telemetry;
pub mod template;
pub mod time;
pub mod tls;
pub mod turn;
pub mod upstream;
pub mod veto;
