//! standin: see docs/ARCHITECTURE.md
pub mod canonical;
pub mod cli;
pub mod config;
pub mod expr;
pub mod mode;
pub mod replay;
pub mod router;
pub mod stand_in;
pub mod store;
pub mod telemetry;
pub mod time;
pub mod upstream;
