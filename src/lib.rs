//! standin: see docs/ARCHITECTURE.md
pub mod config;
pub mod expr;
pub mod store;
pub mod time;
