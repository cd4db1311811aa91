//! The addresses of an upstream and which is next. A name is resolved when a connection is opened.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// One address of the app, as configured.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// `HOST:PORT`, for messages and the `Host` of health questions.
    pub(super) authority: String,
    /// What the name resolved to last: an app whose name vanished with it is still asked where it was, so that its
    /// absence is seen at the app's address and not mistaken for our own trouble with names.
    last_known: Mutex<Vec<SocketAddr>>,
}

/// All endpoints of an upstream, taken in turn.
#[derive(Debug)]
pub(super) struct Endpoints {
    all: Vec<Endpoint>,
    next: AtomicUsize,
}

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;

impl Endpoint {
    /// From `http://HOST:PORT`; port 80 when absent.
    fn parse(url: &str) -> Self {
        let bare = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { bare.to_owned() } else { format!("{bare}:80") };
        Self { authority, last_known: Mutex::default() }
    }

    /// Its addresses now. An error is our own trouble, not the app's.
    pub(super) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.authority.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        match tokio::net::lookup_host(self.authority.as_str()).await {
            Ok(found) => {
                let found: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
                self.last_known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
                Ok(found)
            }
            Err(error) => {
                let known = self.last_known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if known.is_empty() { Err(error) } else { Ok(known) }
            }
        }
    }
}

impl Endpoints {
    pub(super) fn new(urls: &[String]) -> Self {
        Self {
            all: urls.iter().map(|url| Endpoint::parse(url)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn get(&self, index: usize) -> &Endpoint {
        &self.all[index]
    }

    /// Where the next request starts to try: in turn; with one endpoint no shared line is written.
    pub(super) fn start(&self) -> usize {
        if self.all.len() < 2 {
            0
        } else {
            self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_port_is_port_80() {
        assert_eq!(Endpoint::parse("http://shop").authority, "shop:80");
        assert_eq!(Endpoint::parse("http://[::1]").authority, "[::1]:80");
        assert_eq!(Endpoint::parse("http://shop:3000/").authority, "shop:3000");
    }

    #[test]
    fn endpoints_are_taken_in_turn() {
        let endpoints = Endpoints::new(&["http://a:1".into(), "http://b:2".into()]);
        assert_ne!(endpoints.start(), endpoints.start());
    }
}
