//! How many connections one client address has, where that is bounded. Shared by all workers; asked once per connection.

use std::{
    collections::HashMap,
    net::IpAddr,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

/// Cheap to clone. Without a bound nothing is counted.
#[derive(Clone, Debug)]
pub struct PerClient {
    most: Option<NonZeroUsize>,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of a client; given back when dropped.
#[derive(Debug)]
pub(super) struct ClientPlace(Option<(PerClient, IpAddr)>);

impl PerClient {
    pub fn new(most: Option<NonZeroUsize>) -> Self {
        Self { most, open: Arc::default() }
    }

    /// None when the client has its number already.
    pub(super) fn enter(&self, client: IpAddr) -> Option<ClientPlace> {
        let Some(most) = self.most else { return Some(ClientPlace(None)) };
        // An IPv4 client of an IPv6 listener is the same client.
        let client = client.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(client).or_default();
        if *count >= most.get() {
            return None;
        }
        *count += 1;
        Some(ClientPlace(Some((self.clone(), client))))
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let Some((counted, client)) = self.0.take() else { return };
        let mut open = counted.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_own_number_and_nothing_is_left_behind() {
        let counted = PerClient::new(NonZeroUsize::new(2));
        let [one, other]: [IpAddr; 2] =
            ["192.0.2.1", "192.0.2.2"].map(|address| address.parse().unwrap());
        let (first, _second) = (counted.enter(one).unwrap(), counted.enter(one).unwrap());
        assert!(counted.enter(one).is_none());
        assert!(counted.enter("::ffff:192.0.2.1".parse().unwrap()).is_none());
        drop(counted.enter(other).unwrap());
        drop(first);
        assert!(counted.enter(one).is_some());
        assert_eq!(counted.open.lock().unwrap().len(), 1);
    }
}
