//! The settings of the mode that act now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::At;
use crate::{
    admin::{Handles, text},
    mode::{Mode, Setting},
    time::UnixMillis,
};

/// All settings of the mode.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct ModesView {
    /// The setting for all routes; absent: `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<ModeView>,
    /// Settings of single routes; they win.
    pub routes: BTreeMap<String, ModeView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModeView {
    /// `auto`, `forced` or `pass_through`.
    #[schema(value_type = String)]
    pub mode: Mode,
    pub since: At,
    /// After this it is `auto` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<At>,
    pub who: String,
    pub why: String,
}

impl ModesView {
    pub(crate) fn of(handles: &Handles, now: UnixMillis) -> Self {
        let settings = handles.modes.settings();
        let acts = |setting: &Setting| {
            setting.mode != Mode::Auto && setting.until.is_none_or(|until| until > now)
        };
        Self {
            all: settings.all.as_ref().filter(|setting| acts(setting)).map(ModeView::of),
            routes: settings
                .routes
                .iter()
                // A route's own `auto` matters too: it wins over what is set for all.
                .filter(|(_, setting)| setting.until.is_none_or(|until| until > now))
                .map(|(name, setting)| (name.clone(), ModeView::of(setting)))
                .collect(),
        }
    }
}

impl ModeView {
    fn of(setting: &Setting) -> Self {
        Self {
            mode: setting.mode,
            since: At(setting.since),
            until: setting.until.map(At),
            who: text::line(&setting.who),
            why: text::line(&setting.why),
        }
    }
}
