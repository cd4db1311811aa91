//! Assess → append → answer.

pub mod body;
