//! The fields that say for whom a request is sent on.

use std::{
    io::{self, Cursor, Write as _},
    net::{IpAddr, Ipv4Addr},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::peer::Trust;

/// Whoever sent a request, ready to be written down.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    as_given: IpAddr,
    address: IpAddr,
    value: HeaderValue,
    over_tls: bool,
    trusted: bool,
}

impl Sender {
    pub(super) fn new(as_given: IpAddr, over_tls: bool, trust: &Trust) -> Self {
        let address = as_given.to_canonical();
        let value = address_value(address);
        Self { as_given, address, value, over_tls, trusted: trust.covers(address) }
    }

    pub(super) fn came_from(&self, address: IpAddr, over_tls: bool) -> bool {
        self.as_given == address && self.over_tls == over_tls
    }

    fn proto(&self) -> HeaderValue {
        if self.over_tls { HTTPS } else { HTTP }
    }

    /// A trusted peer's word is kept and added to; anybody else's is replaced by what we know ourselves. `has_forwarded`:
    /// there is some word.
    pub(super) fn add_to(&self, headers: &mut HeaderMap, has_forwarded: bool) {
        let host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
        if has_forwarded && self.trusted {
            return self.join(headers, host);
        }
        if has_forwarded {
            remove_forwarded(headers);
        }
        headers.insert(FOR, self.value.clone());
        headers.insert(PROTO, self.proto());
        if let Some(host) = host {
            headers.insert(HOST, host);
        }
    }

    fn join(&self, headers: &mut HeaderMap, host: Option<HeaderValue>) {
        match joined(headers, &FOR) {
            None => headers.insert(FOR, self.value.clone()),
            Some(before) => headers.insert(FOR, list_with(&before, &self.address.to_string())),
        };
        headers.entry(PROTO).or_insert_with(|| self.proto());
        if let Some(host) = &host {
            headers.entry(HOST).or_insert_with(|| host.clone());
        }
        if let Some(before) = joined(headers, &header::FORWARDED) {
            let element = forwarded_element(self.address, self.over_tls, host.as_ref());
            headers.insert(header::FORWARDED, list_with(&before, &element));
        }
    }
}

pub(super) fn is_forwarded(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip")
}

pub(super) fn remove_forwarded(headers: &mut HeaderMap) {
    while let Some(name) = headers.keys().find(|name| is_forwarded(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// All values of a list field as one, without a copy where there is only one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(first.clone());
    }
    let all: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    Some(value_of(Bytes::from(all.join(&b", "[..]))))
}

fn list_with(before: &HeaderValue, element: &str) -> HeaderValue {
    if before.is_empty() {
        return value_of(Bytes::copy_from_slice(element.as_bytes()));
    }
    let mut list = Vec::with_capacity(before.len() + 2 + element.len());
    list.extend_from_slice(before.as_bytes());
    list.extend_from_slice(b", ");
    list.extend_from_slice(element.as_bytes());
    value_of(Bytes::from(list))
}

/// RFC 7239 4: an IPv6 address is bracketed and quoted, a host is quoted for its colon.
pub(super) fn forwarded_element(
    address: IpAddr,
    over_tls: bool,
    host: Option<&HeaderValue>,
) -> String {
    let proto = if over_tls { "https" } else { "http" };
    let node = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    match host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\'])) {
        Some(host) => format!("for={node};proto={proto};host=\"{host}\""),
        None => format!("for={node};proto={proto}"),
    }
}

fn address_value(address: IpAddr) -> HeaderValue {
    let mut text = Cursor::new([0_u8; 64]);
    match address {
        // Each new connection writes one, and formatting costs ten times as much.
        IpAddr::V4(address) => write_v4(&mut text, address),
        IpAddr::V6(address) => write!(text, "{address}"),
    }
    .expect("no address is longer");
    let length = text.position() as usize;
    value_of(Bytes::copy_from_slice(&text.get_ref()[..length]))
}

fn write_v4(text: &mut Cursor<[u8; 64]>, address: Ipv4Addr) -> io::Result<()> {
    for (at, byte) in address.octets().into_iter().enumerate() {
        let digits = [b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10];
        let zeros = usize::from(byte < 100) + usize::from(byte < 10);
        if at > 0 {
            text.write_all(b".")?;
        }
        text.write_all(&digits[zeros..])?;
    }
    Ok(())
}

fn value_of(bytes: Bytes) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes).expect("valid values and ASCII only")
}

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn an_address_is_written_as_it_is_read() {
        let v4 = (0..=255).map(|byte: u8| Ipv4Addr::new(byte, !byte, byte / 2, byte / 16).into());
        let v6 = [Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(!0, 1, 2, !0, !0, 3, !0, !0).into()];
        for address in v4.chain(v6) {
            let address: IpAddr = address;
            assert_eq!(address_value(address), address.to_string());
        }
    }
}
