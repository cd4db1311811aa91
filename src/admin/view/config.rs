//! Which configuration is in force, and how the last attempt to change it went.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;
use crate::reload::ReloadState;

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ConfigStatus {
    /// Absent: standin was started without a file, and cannot reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// 1 at start, one more with each reload that changed something.
    pub generation: u64,
    pub loaded_at: At,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ReloadView>,
}

/// One attempt to reload.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ReloadView {
    pub at: At,
    /// `SIGHUP`, `file`, or a person's name.
    pub who: String,
    /// What changed, a line each; none: the file says what it said before.
    pub changes: Vec<String>,
    /// Why it was refused: nothing changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

impl ConfigStatus {
    pub(crate) fn of(state: &ReloadState) -> Self {
        Self {
            file: state.path.as_ref().map(|path| path.display().to_string()),
            generation: state.generation,
            loaded_at: At(state.loaded_at),
            last: state.last.as_ref().map(|attempt| ReloadView {
                at: At(attempt.at),
                who: attempt.who.clone(),
                changes: attempt.result.clone().unwrap_or_default(),
                refused: attempt.result.clone().err(),
            }),
        }
    }

    /// Why the file as it is now is not what is in force.
    pub fn refused(&self) -> Option<(At, &str)> {
        let last = self.last.as_ref()?;
        last.refused.as_deref().map(|refused| (last.at, refused))
    }
}
