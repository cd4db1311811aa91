//! `[listen]` and `[request_id]`: where clients come in, and what they may cost us.

use std::{net::SocketAddr, num::NonZeroUsize, time::Duration};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ListenTlsConfig, units};

/// `[listen]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Where clients connect: a numeric address with port; `0.0.0.0` or `[::]` for all of this machine.
    #[schemars(with = "units::AddressText")]
    pub address: SocketAddr,
    /// Whether HTTP/2 (with prior knowledge; over TLS as agreed) is spoken besides HTTP/1.1.
    pub http2: bool,
    /// TLS towards clients; absent: they speak in clear.
    pub tls: Option<ListenTlsConfig>,
    /// The PROXY protocol (1 and 2): a load balancer in front says for whom it connects, and nobody else may connect.
    pub proxy_protocol: Option<ProxyProtocolConfig>,
    /// What one client, and all together, may cost.
    pub limits: Limits,
}

/// `listen.proxy_protocol`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocolConfig {
    /// Peers (addresses or networks) that must begin each connection with a PROXY header; those of others are closed.
    #[schemars(with = "Vec<units::NetworkText>")]
    pub from: Vec<IpNet>,
}

/// `[listen.limits]`: what one client, and all together, may cost.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest request head in bytes; 431 above it.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub head: u64,
    /// Most header fields in a request; 431 above it.
    pub headers: usize,
    /// Largest request body in bytes; 413 above it. Absent: no limit (bodies are streamed, not kept).
    #[serde(with = "units::optional_size")]
    #[schemars(with = "Option<units::SizeText>")]
    pub body: Option<u64>,
    /// Requests in flight at once, all workers together; 503 above it.
    pub in_flight: usize,
    /// Open client connections, all workers together; above it new ones wait in the kernel's queue.
    pub connections: usize,
    /// Longest time for a request head, and longest idle time of a kept-alive connection.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub head_timeout: Duration,
    /// Longest silence within a request body.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub body_idle: Duration,
    /// Longest time a client may take nothing of its answer.
    #[serde(with = "units::duration")]
    #[schemars(with = "units::DurationText")]
    pub write_idle: Duration,
    /// Slowest transfer of a request body or an answer, in bytes a second on average after the first five seconds of waiting
    /// for the client; 0: none, silence alone is bounded.
    pub min_rate: u64,
    /// Open connections of one client address; above it new ones are closed. Absent: no limit (behind a load balancer all
    /// clients have its address).
    pub connections_per_client: Option<NonZeroUsize>,
    /// Memory for all request bodies being copied aside or read whole, in bytes; small pieces of one count 64 bytes more each.
    #[serde(with = "units::size")]
    #[schemars(with = "units::SizeText")]
    pub copied_bodies: u64,
}

/// `[request_id]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestIdConfig {
    /// Header that carries the request id to the app and back.
    pub header: String,
    /// Peers (addresses or networks) whose request id is kept. Default: loopback.
    #[schemars(with = "Vec<units::NetworkText>")]
    pub trust: Vec<IpNet>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            http2: true,
            tls: None,
            proxy_protocol: None,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 64 << 10,
            headers: 100,
            body: None,
            in_flight: 10_000,
            connections: 20_000,
            head_timeout: Duration::from_secs(10),
            body_idle: Duration::from_secs(30),
            write_idle: Duration::from_secs(30),
            min_rate: 32,
            connections_per_client: None,
            copied_bodies: 256 << 20,
        }
    }
}

impl Default for RequestIdConfig {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        Self {
            header: "x-request-id".to_owned(),
            trust: loopback.iter().map(|net| net.parse().expect("a network literal")).collect(),
        }
    }
}
