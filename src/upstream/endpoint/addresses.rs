//! Where an endpoint is now: what its name resolved to last, published by whoever follows the name.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, watch};

/// See the module. A name that vanishes keeps its last addresses: an app that is gone is seen to be gone where it was.
#[derive(Debug)]
pub(in crate::upstream) struct Addresses {
    known: watch::Sender<Known>,
    /// Counts the changes: whether a kept connection is to be looked at costs one load.
    changes: AtomicU64,
    /// Somebody could not connect: the name may lead elsewhere by now.
    ask_again: Notify,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    /// Why the last look at the name gave nothing.
    fault: Option<String>,
}

impl Addresses {
    /// An address needs no name.
    pub(super) fn fixed(address: SocketAddr) -> Self {
        Self::starting(Known { addresses: [address].into(), fault: None })
    }

    pub(super) fn unknown() -> Self {
        Self::starting(Known::default())
    }

    fn starting(known: Known) -> Self {
        Self {
            known: watch::Sender::new(known),
            changes: AtomicU64::new(0),
            ask_again: Notify::new(),
        }
    }

    /// The addresses now. Right after the start it waits for the first look at the name, for `patience` at most.
    pub(in crate::upstream) async fn get(
        &self,
        patience: Duration,
    ) -> Result<Arc<[SocketAddr]>, String> {
        let settled = |known: &Known| !known.addresses.is_empty() || known.fault.is_some();
        let mut known = self.known.subscribe();
        let known = tokio::time::timeout(patience, known.wait_for(settled)).await;
        match known {
            Ok(Ok(known)) if !known.addresses.is_empty() => Ok(Arc::clone(&known.addresses)),
            Ok(Ok(known)) => Err(known.fault.clone().unwrap_or_default()),
            Ok(Err(_)) | Err(_) => Err(format!("no answer within {patience:?}")),
        }
    }

    pub(super) fn now(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.known.borrow().addresses)
    }

    /// Whether a connection to this address still leads to the endpoint.
    pub(in crate::upstream) fn has(&self, address: &SocketAddr) -> bool {
        self.known.borrow().addresses.contains(address)
    }

    /// What the name leads to from now on.
    pub(in crate::upstream) fn publish(&self, found: &[SocketAddr]) -> bool {
        let mut is_new = false;
        self.known.send_if_modified(|known| {
            is_new = *known.addresses != *found;
            if is_new {
                known.addresses = found.into();
            }
            is_new | known.fault.take().is_some()
        });
        if is_new {
            self.changes.fetch_add(1, Ordering::Relaxed);
        }
        is_new
    }

    /// How often the addresses have changed.
    pub(in crate::upstream) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The name leads nowhere now: the last addresses stay.
    pub(in crate::upstream) fn publish_fault(&self, fault: String) {
        self.known.send_modify(|known| known.fault = Some(fault));
    }

    pub(in crate::upstream) fn doubt(&self) {
        self.ask_again.notify_one();
    }

    /// Ready once somebody had a doubt.
    pub(in crate::upstream) async fn doubted(&self) {
        self.ask_again.notified().await;
    }
}
