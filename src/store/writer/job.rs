//! What waits for the writer: captures, and marks of what became of entries.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    store::{
        AuditLine, Digest, HeldReason, KeptAnswer, Outcome, Sending, Seq, StoreError, Verdict,
        codec::Prepared, mailbox::Ticket,
    },
    time::UnixMillis,
};

pub(in crate::store) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A new entry that waits to be stored.
#[derive(Debug)]
pub(in crate::store) struct Capture {
    pub(in crate::store) entry: Box<Prepared>,
    pub(in crate::store) reply: Ticket,
}

/// Everything else that waits to be written.
#[derive(Debug)]
pub(in crate::store) struct MarkJob {
    pub(in crate::store) mark: Mark,
    pub(in crate::store) reply: Reply<Marked>,
}

#[derive(Debug)]
pub(in crate::store) enum Mark {
    Sending {
        seq: Seq,
        fence: u64,
    },
    HoldLeased {
        seq: Seq,
        fence: u64,
        reason: HeldReason,
        why: String,
    },
    Finish {
        seq: Seq,
        fence: u64,
        attempt: u32,
        verdict: Verdict,
    },
    CloseLate {
        seq: Seq,
        outcome: Outcome,
        why: String,
        answer: KeptAnswer,
    },
    CloseLive {
        key: Digest,
        outcome: Outcome,
        why: String,
        answer: KeptAnswer,
    },
    Worsen {
        key: Digest,
        not_before: UnixMillis,
        cause: String,
    },
    HoldUnanswered {
        seq: Seq,
    },
    Note {
        seq: Seq,
        who: String,
        why: String,
        answer: Option<KeptAnswer>,
    },
    Hold {
        seq: Seq,
        who: String,
        why: String,
    },
    Release {
        seq: Seq,
        extend: Duration,
        who: String,
        why: String,
    },
    WriteOff {
        seq: Seq,
        who: String,
        why: String,
    },
    FollowUp {
        seq: Seq,
        who: String,
        why: String,
    },
    Audit(AuditLine),
    Remember {
        name: String,
        value: String,
    },
    /// Both or neither.
    Decree {
        name: String,
        value: String,
        line: AuditLine,
    },
}

#[derive(Debug)]
pub(in crate::store) enum Marked {
    Done,
    Sending(Sending),
}
