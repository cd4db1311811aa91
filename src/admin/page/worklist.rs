//! What waits for a person: held entries by reason, and declined ones that nobody has followed up, oldest first, each
//! with what can be done.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use serde::Deserialize;

use super::{Frame, Shown, filters, html, overview::Done};
use crate::{
    admin::{
        Admin,
        bulk::one_by_one,
        problem::Problem,
        view::{EntryView, word},
    },
    store::{HeldReason, Seq, StoreError, Work},
};

#[derive(Template)]
#[template(path = "worklist.html")]
struct Worklist {
    frame: Frame,
    /// One of them has a page of its own.
    only: bool,
    groups: Vec<Group>,
}

/// Entries that wait for the same reason.
struct Group {
    title: String,
    /// What a person can do.
    advice: &'static str,
    entries: Vec<EntryView>,
    /// Where all of them are released, if that can be decided at once.
    release: Option<String>,
    /// Where those after them are, if there are more.
    next: Option<String>,
}

/// Where a page of one group begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Place {
    after: Option<i64>,
}

/// Entries of a group on one page.
const SHOWN: u32 = 50;

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    Query(Done { done }): Query<Done>,
) -> Shown {
    let mut groups = Vec::new();
    for (work, title, advice) in ALL {
        groups.extend(page(&admin, work, title, advice, None).await?);
    }
    let frame = Frame::now(&admin, "worklist", "Worklist").done(&done);
    Ok(html(&Worklist { frame, only: false, groups }))
}

/// All of one group, a page at a time.
pub(super) async fn group(
    State(admin): State<Arc<Admin>>,
    Path(group): Path<String>,
    Query(Place { after }): Query<Place>,
) -> Shown {
    let Some((work, title, advice)) = ALL.into_iter().find(|(work, ..)| name(*work) == group)
    else {
        return Err(Problem::no_such("page").into());
    };
    let group = page(&admin, work, title, advice, after.map(Seq)).await?;
    let frame = Frame::now(&admin, "worklist", title);
    Ok(html(&Worklist { frame, only: true, groups: group.into_iter().collect() }))
}

async fn page(
    admin: &Admin,
    work: Work,
    title: &str,
    advice: &'static str,
    after: Option<Seq>,
) -> Result<Option<Group>, StoreError> {
    let count = admin.handles.store.work_count(work);
    if count == 0 {
        return Ok(None);
    }
    let page = admin.handles.store.work(work, after, SHOWN).await?;
    let at_once = matches!(work, Work::Held(held) if one_by_one(held).is_none());
    Ok(Some(Group {
        title: format!("{title} ({count})"),
        advice,
        entries: page.entries.iter().map(EntryView::of).collect(),
        release: (at_once && count > 1).then(|| format!("/worklist/{}/release", name(work))),
        next: page.more.map(|last| format!("/worklist/{}?after={}", name(work), last.0)),
    }))
}

/// As it stands in an address.
fn name(work: Work) -> String {
    match work {
        Work::Declined => "declined".into(),
        Work::Held(reason) => word(&reason),
    }
}

const DECLINED: &str = "The app refused these for good after their customers were told yes. Open one to see the app's \
                        answer, contact the customer or enter the order by hand, and say that it is followed up.";

const ALL: [(Work, &str, &str); 9] = [
    (Work::Declined, "Declined by the app", DECLINED),
    (
        Work::Held(HeldReason::Unclear),
        "Held: unclear whether applied",
        "Search the app for the request id or key. If it is there, write the entry off; if it is not, release it.",
    ),
    (
        Work::Held(HeldReason::Expired),
        "Held: expired",
        "Ask whether the customer still wants it. Release it with a new time, or write it off.",
    ),
    (
        Work::Held(HeldReason::Attempts),
        "Held: all attempts used up",
        "Look at the app's last answers in the history. When the app is fixed, release it.",
    ),
    (
        Work::Held(HeldReason::Credentials),
        "Held: credentials refused",
        "The app refused the login kept with the request. Let the customer log in and order again, then write it off; or \
         give replays valid credentials (replay.set_headers) and release it.",
    ),
    (
        Work::Held(HeldReason::Unanswered),
        "Held: client got no answer",
        "The client left before its answer, so it may have ordered again. Compare with later orders; release it if it is \
         missing, write it off if not.",
    ),
    (
        Work::Held(HeldReason::RouteGone),
        "Held: route gone",
        "No route of that name is configured. Bring it back and release the entries, or write them off.",
    ),
    (
        Work::Held(HeldReason::Damaged),
        "Held: damaged on disk",
        "The bytes do not fit their checksum and are never sent. Check the disk; enter the order by hand from what can \
         be read, and write it off.",
    ),
    (
        Work::Held(HeldReason::ByPerson),
        "Held by a person",
        "See the history for who held it and why. Release it or write it off.",
    ),
];
