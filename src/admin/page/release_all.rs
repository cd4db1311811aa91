//! Releases all that is held for one reason, in two steps.

use std::sync::Arc;

use axum::{
    Extension, Form,
    extract::{Path, State},
};
use serde::Deserialize;

use super::{Confirm, Frame, Shown, back_to, html};
use crate::{
    admin::{
        Admin,
        actions::Why,
        bulk::{AllHeld, MOST, one_by_one},
        filter::{duration, one_of},
        guard::Who,
        problem::Problem,
        view::{counted, word},
    },
    store::{HeldReason, Work},
};

pub(super) async fn confirm(State(admin): State<Arc<Admin>>, Path(held): Path<String>) -> Shown {
    let held = reason(&held)?;
    let count = admin.handles.store.work_count(Work::Held(held)).min(MOST);
    let group = format!("/worklist/{}", word(&held));
    let not = match one_by_one(held) {
        Some(because) => Some(format!("Not possible: {because}. Release them one by one.")),
        None if count == 0 => Some("Not possible: nothing is held for this reason now.".to_owned()),
        None => None,
    };
    let possible = not.is_none();
    let entries = counted(count, "entry that is", "entries that are");
    let question = format!("Release {entries} held: {}?", word(&held).replace('_', " "));
    Ok(html(&Confirm {
        frame: Frame::now(&admin, "worklist", question.clone()),
        question,
        means: not.map_or_else(means, |not| vec![not]),
        action: format!("{group}/release"),
        // Who was asked about so many has not agreed to more.
        hidden: vec![("at_most", count.to_string())],
        button: "Release them",
        grave: false,
        back: group,
        time: (held == HeldReason::Expired).then(|| ("extend", "May be sent for", "24h".into())),
        possible,
    }))
}

fn means() -> Vec<String> {
    vec![
        "Each of them, the oldest first, is stored again and due at once; its attempts are counted anew.".into(),
        "Each one's history and the audit log will say who released it and why.".into(),
        "What the app may have applied already is sent again only as long as the app is declared to refuse duplicates; \
         else it is held again, as unclear."
            .into(),
        "Live traffic goes first; the replay starts slowly and stops by itself when the app fails.".into(),
    ]
}

#[derive(Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    extend: String,
    at_most: u64,
}

pub(super) async fn act(
    State(admin): State<Arc<Admin>>,
    Extension(who): Extension<Who>,
    Path(held): Path<String>,
    Form(asked): Form<Asked>,
) -> Shown {
    let all = AllHeld {
        held: reason(&held)?,
        route: None,
        at_most: asked.at_most,
        extend: duration("extend", &asked.extend)?,
    };
    admin.release_all(&all, &who, &Why::of(&asked.reason)?).await?;
    Ok(back_to("/worklist", "release-all"))
}

fn reason(held: &str) -> Result<HeldReason, Problem> {
    one_of("held", held).ok().flatten().ok_or_else(|| Problem::no_such("page"))
}
