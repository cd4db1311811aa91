//! TLS: that the files are there and fit together, and that no key is without effect. They are read once more at the
//! start; what is told here is told before.

use std::path::{Path, PathBuf};

use crate::{
    config::{ListenConfig, UpstreamConfig, document::Document, is_https},
    tls::{self, TlsFault},
};

pub(super) fn listen(listen: &ListenConfig, document: &mut Document<'_>, folder: &Path) {
    if listen.proxy_protocol.as_ref().is_some_and(|proxies| proxies.from.is_empty())
        && document.is_whole(&["listen", "proxy_protocol", "from"])
    {
        document.fault(
            &["listen", "proxy_protocol", "from"],
            "empty: nobody could connect; write from = [\"10.0.0.0/8\"]",
        );
    }
    let Some(written) = &listen.tls else { return };
    let section = ["listen", "tls"];
    if written.client_ca.is_none() && document.is_written(&["listen", "tls", "client_auth"]) {
        document.fault(
            &["listen", "tls", "client_auth"],
            "has no effect without `client_ca`: write both",
        );
    }
    if written.more.len() > MOST_CERTIFICATES {
        let message = format!("more than {MOST_CERTIFICATES} certificates");
        document.fault(&["listen", "tls", "more"], &message);
        return;
    }
    let mut placed = written.clone();
    placed.place(folder);
    let keys = [("cert", Some(&placed.cert)), ("key", Some(&placed.key))];
    let keys = keys.into_iter().chain([("client_ca", placed.client_ca.as_ref())]);
    let keys: Vec<(&str, &PathBuf)> =
        keys.filter_map(|(key, path)| path.map(|path| (key, path))).collect();
    if keys.iter().any(|(key, _)| !document.sound(&["listen", "tls", key])) {
        return;
    }
    if let Err(fault) = tls::server::load(&placed, listen.http2) {
        tell(document, &section, &keys, "more", &fault);
    }
}

pub(super) fn upstream(
    name: &str,
    upstream: &UpstreamConfig,
    document: &mut Document<'_>,
    folder: &Path,
) {
    let is_used = upstream.endpoints.iter().any(|endpoint| is_https(endpoint));
    let section = ["upstream", name, "tls"];
    if !is_used {
        if upstream.tls.is_some() && document.is_whole(&["upstream", name, "endpoints"]) {
            document.fault(&section, "has no effect: no endpoint begins with https://");
        }
        return;
    }
    let mut placed = upstream.tls.clone().unwrap_or_default();
    placed.place(folder);
    let at = |key| ["upstream", name, "tls", key];
    let alone = match (&placed.cert, &placed.key) {
        (Some(_), None) => Some(("cert", "key")),
        (None, Some(_)) => Some(("key", "cert")),
        _ => None,
    };
    if let Some((one, other)) = alone {
        let message = format!("has no effect without `{other}`: write both");
        return document.fault(&at(one), &message);
    }
    let keys = [("ca_file", &placed.ca_file), ("cert", &placed.cert), ("key", &placed.key)];
    let keys = keys.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
    let keys: Vec<(&str, &PathBuf)> = keys.collect();
    if keys.iter().any(|(key, _)| !document.sound(&at(key))) {
        return;
    }
    if let Err(fault) = tls::client::ClientTls::load(name, &placed, upstream.http2) {
        let otherwise = if placed.server_name.is_some() { "server_name" } else { "ca_file" };
        tell(document, &section, &keys, otherwise, &fault);
    }
}

/// At the key that names the file which is at fault.
fn tell(
    document: &mut Document<'_>,
    section: &[&str],
    keys: &[(&str, &PathBuf)],
    otherwise: &str,
    fault: &TlsFault,
) {
    let at = match fault {
        TlsFault::Read { path, .. } | TlsFault::Content { path, .. } => {
            keys.iter().find(|(_, file)| *file == path).map_or(otherwise, |(key, _)| key)
        }
        TlsFault::Other(_) => otherwise,
    };
    let path: Vec<&str> = section.iter().copied().chain([at]).collect();
    document.fault(&path, &fault.to_string());
}

const MOST_CERTIFICATES: usize = 100;
