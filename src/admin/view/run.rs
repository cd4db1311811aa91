//! Replay runs, volumes and the audit log as they are shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;
use crate::{
    admin::text,
    replay::{RunState, RunView},
    store::{AuditLine, Volume},
};

/// Running and recent runs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    pub runs: Vec<RunStatus>,
}

/// One replay run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunStatus {
    pub id: String,
    /// `all`, `route checkout`, `entry 7K3M-Q2XD`.
    pub scope: String,
    /// `recovery`, or a person's name.
    pub who: String,
    pub why: String,
    /// `running`, `waiting`, `done` or `stopped`.
    pub state: String,
    /// Why it waits or was stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_why: Option<String>,
    pub started_at: At,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<At>,
    /// Entries it takes: those open at its start and those that came later.
    pub total: u64,
    pub sent: u64,
    pub completed: u64,
    pub already_applied: u64,
    pub declined: u64,
    pub held: u64,
    /// Attempts that failed for now and were or will be repeated.
    pub again: u64,
    pub in_flight: u64,
    /// Replays in flight that the pace allows now.
    pub pace: u64,
}

/// What a replay run of this scope would take now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Impact {
    pub entries: u64,
}

/// One line of the audit log.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    pub at: At,
    pub who: String,
    pub what: String,
    pub on: String,
    pub why: String,
}

/// One UTC day of one route.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    pub day: String,
    pub route: String,
    pub accepted: u64,
    pub completed: u64,
    pub declined: u64,
    pub written_off: u64,
    pub amount: i64,
}

impl RunList {
    pub(crate) fn of(runs: &[RunView]) -> Self {
        Self { runs: runs.iter().take(50).map(RunStatus::of).collect() }
    }
}

impl RunStatus {
    pub(crate) fn of(run: &RunView) -> Self {
        let (state, why) = match &run.state {
            RunState::Running => ("running", None),
            RunState::Waiting(why) => ("waiting", Some(why)),
            RunState::Done => ("done", None),
            RunState::Stopped(why) => ("stopped", Some(why)),
        };
        Self {
            id: run.id.clone(),
            scope: text::line(&run.scope),
            who: text::line(&run.who),
            why: text::line(&run.why),
            state: state.to_owned(),
            state_why: why.map(|why| text::line(why)),
            started_at: At(run.started_at),
            ended_at: run.ended_at.map(At),
            total: run.total,
            sent: run.sent,
            completed: run.completed,
            already_applied: run.already_applied,
            declined: run.declined,
            held: run.held,
            again: run.again,
            in_flight: run.in_flight,
            pace: run.pace,
        }
    }

    /// Whether it goes on.
    pub fn goes_on(&self) -> bool {
        matches!(&*self.state, "running" | "waiting")
    }

    /// Entries that came to an end in this run.
    pub fn finished(&self) -> u64 {
        self.completed + self.already_applied + self.declined + self.held
    }

    /// Of 100; 100 for nothing to do.
    pub fn percent(&self) -> u64 {
        (self.finished() * 100).checked_div(self.total).map_or(100, |percent| percent.min(100))
    }
}

impl AuditView {
    pub(crate) fn of(line: &AuditLine) -> Self {
        Self {
            at: At(line.at),
            who: text::line(&line.who),
            what: text::line(&line.what),
            on: text::line(&line.on),
            why: text::line(&line.why),
        }
    }
}

impl VolumeView {
    pub(crate) fn of(volume: &Volume) -> Self {
        Self {
            day: volume.day.clone(),
            route: volume.route.to_string(),
            accepted: volume.accepted,
            completed: volume.completed,
            declined: volume.declined,
            written_off: volume.written_off,
            amount: volume.amount,
        }
    }
}
