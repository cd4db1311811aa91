//! Follows the names of an upstream's endpoints: asks again when an answer's time to live is over, or when somebody
//! could not connect. A task of the server; requests only read what it published.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig as Servers},
    net::runtime::TokioRuntimeProvider,
};
use tokio::time::Instant;

use super::{Upstream, endpoint::Endpoint};
use crate::config::{ResolverConfig, ResolverKind};

/// Runs until dropped. Without names there is nothing to do.
pub async fn follow(upstream: &Upstream) {
    let names: Vec<_> = upstream.endpoints.all().iter().filter(|it| it.named).collect();
    if names.is_empty() {
        return std::future::pending().await;
    }
    let resolver = Resolver::new(&upstream.config.resolver);
    join_all(names.into_iter().map(|endpoint| follow_one(upstream, endpoint, &resolver))).await;
}

async fn follow_one(upstream: &Upstream, endpoint: &Endpoint, resolver: &Resolver) {
    let mut faults = 0_u32;
    loop {
        let good_for = match resolver.look_up(endpoint.host(), endpoint.port()).await {
            Ok((found, good_for)) => {
                faults = 0;
                if endpoint.addresses.publish(&found) {
                    tracing::info!(
                        upstream = &*upstream.name,
                        endpoint = endpoint.authority,
                        ?found,
                        "addresses"
                    );
                }
                good_for.clamp(SHORTEST, LONGEST)
            }
            Err(fault) => {
                tracing::debug!(
                    upstream = &*upstream.name,
                    endpoint = endpoint.authority,
                    fault,
                    "no addresses"
                );
                endpoint.addresses.publish_fault(fault);
                faults = faults.saturating_add(1);
                (SHORTEST * faults).min(AFTER_FAULTS)
            }
        };
        // However many could not connect, the name servers are asked once in a while only.
        tokio::time::sleep(SHORTEST.min(good_for)).await;
        let rest = good_for.saturating_sub(SHORTEST);
        tokio::time::timeout(rest, endpoint.addresses.doubted()).await.ok();
    }
}

/// Bounds of the time for which an answer counts.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);
/// Longest wait after answers that were none.
const AFTER_FAULTS: Duration = Duration::from_secs(5);
/// The C library does not say how long an answer is good.
const SYSTEM: Duration = Duration::from_secs(10);
/// Longest time for one look at a name.
const PATIENCE: Duration = Duration::from_secs(5);
/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 64;

enum Resolver {
    Dns {
        resolver: Box<TokioResolver>,
        /// Names are complete: no search list.
        complete: bool,
    },
    System,
    /// The configuration of the system's name servers cannot be read.
    Broken(String),
}

impl Resolver {
    fn new(config: &ResolverConfig) -> Self {
        match config {
            ResolverConfig::Kind(ResolverKind::System) => Self::System,
            ResolverConfig::Kind(ResolverKind::Dns) => {
                Self::dns(TokioResolver::builder_tokio(), false)
            }
            ResolverConfig::Servers(servers) => {
                let servers = servers.servers.iter().map(|server| name_server(*server)).collect();
                let config = Servers::from_name_servers(servers);
                let provider = TokioRuntimeProvider::default();
                Self::dns(Ok(TokioResolver::builder_with_config(config, provider)), true)
            }
        }
    }

    fn dns(
        builder: Result<
            hickory_resolver::ResolverBuilder<TokioRuntimeProvider>,
            hickory_resolver::net::NetError,
        >,
        complete: bool,
    ) -> Self {
        let resolver = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            // Whoever asks here wants to know what is, not what was.
            options.cache_size = 0;
            options.timeout = PATIENCE / 2;
            builder.build()
        });
        match resolver {
            Ok(resolver) => Self::Dns { resolver: Box::new(resolver), complete },
            Err(error) => Self::Broken(error.to_string()),
        }
    }

    /// Addresses of both families, and how long they are good. An error is our own trouble, not the app's.
    async fn look_up(&self, host: &str, port: u16) -> Result<(Vec<SocketAddr>, Duration), String> {
        let looked_up = match self {
            Self::Dns { resolver, complete } => {
                let dot = if *complete && !host.ends_with('.') { "." } else { "" };
                let name = format!("{host}{dot}");
                tokio::time::timeout(PATIENCE, async {
                    let found =
                        resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
                    let until = Instant::from_std(found.valid_until());
                    let good_for = until.saturating_duration_since(Instant::now());
                    Ok((found.iter().collect::<Vec<IpAddr>>(), good_for))
                })
                .await
            }
            Self::System => {
                tokio::time::timeout(PATIENCE, async {
                    let found = tokio::net::lookup_host((host, port)).await;
                    let found: io::Result<Vec<IpAddr>> =
                        found.map(|found| found.map(|address| address.ip()).collect());
                    found.map(|found| (found, SYSTEM)).map_err(|error| error.to_string())
                })
                .await
            }
            Self::Broken(fault) => return Err(fault.clone()),
        };
        let (found, good_for) =
            looked_up.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))?;
        if found.is_empty() {
            return Err("the name has no address".to_owned());
        }
        Ok((in_order(found, port), good_for))
    }
}

/// Sorted, so that servers which turn their lists round change nothing.
fn in_order(mut found: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(MOST_ADDRESSES).map(|ip| SocketAddr::new(ip, port)).collect()
}

/// UDP first, TCP where an answer is too large for it.
fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_an_answer_changes_nothing() {
        let ips: Vec<IpAddr> =
            ["10.0.0.2", "::2", "10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap()).into();
        let mut turned = ips.clone();
        turned.rotate_left(2);
        assert_eq!(in_order(ips, 80), in_order(turned, 80));
    }

    #[test]
    fn only_so_many_addresses_are_used() {
        let many = (0..1000_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert_eq!(in_order(many, 80).len(), MOST_ADDRESSES);
    }
}
