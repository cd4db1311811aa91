//! No filter: what the listener tells about the client, and whose word counts.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::request_check::FramingVerdict;

/// The body of a request, which knows who sends it: an extension of each request would cost it three allocations.
pub trait FromClient {
    fn client(&self) -> Option<&Client>;

    /// The id of the request was made here and for it.
    fn note_new_id(&mut self);

    /// No other request can have its id yet.
    fn id_is_new(&self) -> bool;
}

/// Nobody sent it.
impl FromClient for () {
    fn client(&self) -> Option<&Client> {
        None
    }

    fn note_new_id(&mut self) {}

    fn id_is_new(&self) -> bool {
        false
    }
}

/// Where a request came from: the same for all of one connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub address: SocketAddr,
    /// It came over TLS.
    pub over_tls: bool,
    /// What the watch of the connection's raw bytes has to say.
    pub framing: FramingVerdict,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, over_tls: false, framing: FramingVerdict::default() }
    }
}

/// Networks of the peers whose forwarding fields and request ids are kept. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    networks: Arc<[IpNet]>,
}

impl Trust {
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self { networks: networks.into_iter().collect() }
    }

    /// An IPv4 address that came in on an IPv6 socket counts as the IPv4 address it is.
    pub fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Whether the request's peer is trusted; one without an address is not.
    pub(crate) fn covers_peer_of(&self, body: &impl FromClient) -> bool {
        body.client().is_some_and(|client| self.covers(client.address.ip()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_networks_are_trusted() {
        let trust = Trust::new(["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for (address, trusted) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:10.0.0.1", false),
            ("10.0.0.1", false),
        ] {
            assert_eq!(trust.covers(address.parse().unwrap()), trusted, "{address}");
        }
        assert!(!Trust::default().covers("127.0.0.1".parse().unwrap()));
        assert!(!trust.covers_peer_of(&()), "no address, no trust");
    }
}
