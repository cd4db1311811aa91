//! What waits for a person: held entries by reason, and declined ones, oldest first, each with what can be done.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;

use super::{Frame, Shown, filters, html};
use crate::{
    admin::{
        Admin,
        view::{EntryView, word},
    },
    store::{HeldReason, Outcome, PageQuery, State as EntryState, StoreError},
};

#[derive(Template)]
#[template(path = "worklist.html")]
struct Worklist {
    frame: Frame,
    groups: Vec<Group>,
}

/// Entries that wait for the same reason.
struct Group {
    title: String,
    /// What a person can do.
    advice: &'static str,
    entries: Vec<EntryView>,
    /// Whether there are more than are shown.
    more: bool,
    /// Where all of them are listed.
    all: String,
}

/// Entries read per group, and shown of them.
const READ: usize = 1000;
const SHOWN: usize = 50;

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Shown {
    let mut groups = Vec::new();
    let declined = PageQuery { outcome: Some(Outcome::Declined), ..PageQuery::default() };
    let group =
        group(&admin, declined, "Declined by the app", DECLINED, "outcome=declined").await?;
    groups.extend(group);
    for (reason, title, advice) in REASONS {
        let query =
            PageQuery { state: Some(EntryState::Held), held: Some(reason), ..PageQuery::default() };
        let all = format!("state=held&held={}", word(&reason));
        groups.extend(self::group(&admin, query, title, advice, &all).await?);
    }
    Ok(html(&Worklist { frame: Frame::now(&admin, "worklist", "Worklist"), groups }))
}

async fn group(
    admin: &Admin,
    mut query: PageQuery,
    title: &str,
    advice: &'static str,
    all: &str,
) -> Result<Option<Group>, StoreError> {
    query.limit = 200;
    let mut found = Vec::new();
    loop {
        let page = admin.handles.store.page(query.clone()).await?;
        found.extend(page.entries.iter().map(EntryView::of));
        query.before = page.more;
        if page.more.is_none() || found.len() >= READ {
            break;
        }
    }
    if found.is_empty() {
        return Ok(None);
    }
    found.reverse();
    let count =
        if query.before.is_some() { format!("{}+", found.len()) } else { found.len().to_string() };
    let more = found.len() > SHOWN || query.before.is_some();
    found.truncate(SHOWN);
    Ok(Some(Group {
        title: format!("{title} ({count})"),
        advice,
        entries: found,
        more,
        all: format!("/entries?{all}"),
    }))
}

const DECLINED: &str = "The app refused these for good after their customers were told yes. Open one to see the app's \
                        answer, then contact the customer or enter the order by hand.";

const REASONS: [(HeldReason, &str, &str); 8] = [
    (
        HeldReason::Unclear,
        "Held: unclear whether applied",
        "Search the app for the request id or key. If it is there, write the entry off; if it is not, release it.",
    ),
    (
        HeldReason::Expired,
        "Held: expired",
        "Ask whether the customer still wants it. Release it with a new time, or write it off.",
    ),
    (
        HeldReason::Attempts,
        "Held: all attempts used up",
        "Look at the app's last answers in the history. When the app is fixed, release it.",
    ),
    (
        HeldReason::Credentials,
        "Held: credentials refused",
        "The app refused the login kept with the request. Let the customer log in and order again, then write it off; or \
         give replays valid credentials (`replay.set_headers`) and release it.",
    ),
    (
        HeldReason::Unanswered,
        "Held: client got no answer",
        "The client left before its answer, so it may have ordered again. Compare with later orders; release it if it is \
         missing, write it off if not.",
    ),
    (
        HeldReason::RouteGone,
        "Held: route gone",
        "No route of that name is configured. Bring it back and release the entries, or write them off.",
    ),
    (
        HeldReason::Damaged,
        "Held: damaged on disk",
        "The bytes do not fit their checksum and are never sent. Check the disk; enter the order by hand from what can \
         be read, and write it off.",
    ),
    (
        HeldReason::ByPerson,
        "Held by a person",
        "See the history for who held it and why. Release it or write it off.",
    ),
];
