//! standin: see docs/ARCHITECTURE.md
pub mod canonical;
pub mod cli;
pub mod client_body;
pub mod config;
pub mod expr;
pub mod failover;
pub mod filter_chain;
pub mod listener;
pub mod mode;
pub mod replay;
pub mod router;
pub mod server;
pub mod stand_in;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod upstream;
