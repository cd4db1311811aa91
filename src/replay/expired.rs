//! Entries that expire while nobody can send them: they are held when it happens, not only when the app is back and their
//! turn comes. Open and counted as before, and a person sees them in time.

use super::Parts;
use crate::{
    store::{HeldReason, Seq, StoreError},
    time::UnixMillis,
};

/// Looks at all open entries once, some at a time.
pub(super) async fn hold_expired(parts: Parts) {
    let mut from = Some(Seq(0));
    while let Some(seq) = from {
        let (expired, next) = parts.store.expired(seq, UnixMillis::now());
        from = next;
        for seq in expired {
            // Somebody is about to send it, and will find out.
            let Some(lease) = parts.store.lease(seq) else { continue };
            match parts.store.hold_leased(lease, HeldReason::Expired, WHY).await {
                Ok(()) => tracing::warn!(entry = seq.0, "an entry is held: it has expired"),
                Err(StoreError::Moved(_)) => {}
                Err(error) => {
                    tracing::warn!(%error, "an expired entry could not be held yet");
                    return;
                }
            }
        }
        // Whoever answers requests does not wait for a long look.
        tokio::task::yield_now().await;
    }
}

const WHY: &str = "expired before it could be sent";
