//! HAProxy and nginx, run with the files that are shipped; only addresses and times are put in.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use socket2::Socket;
use tokio::net::TcpStream;

use super::LONG;
use crate::support::{Process, eventually, folder};

/// A running router.
pub(super) struct Router {
    kind: Kind,
    config: String,
    address: SocketAddr,
    _process: Process,
    _port: Socket,
    _folder: tempfile::TempDir,
}

#[derive(Clone, Copy)]
enum Kind {
    Haproxy,
    Nginx,
}

impl Router {
    /// `haproxy` or `nginx`, in front of an app and its standby.
    pub(super) async fn start(kind: &str, app: SocketAddr, standby: SocketAddr) -> Self {
        let kind = if kind == "haproxy" { Kind::Haproxy } else { Kind::Nginx };
        let times: &[(&str, &str)] = match kind {
            Kind::Haproxy => &[("timeout server 5s", "timeout server 1500ms")],
            Kind::Nginx => &[
                ("proxy_read_timeout    5s", "proxy_read_timeout 1500ms"),
                ("worker_processes auto", "worker_processes 1"),
                // As another user than root, nginx cannot use the folders it was built with.
                ("proxy_temp_path         proxy;", NGINX_FOLDERS),
            ],
        };
        let mut config = shipped(kind.file());
        for (from, to) in times {
            config = put(&config, from, to);
        }
        config = put(&config, "192.0.2.10:3000", &app.to_string());
        config = put(&config, "198.51.100.20:8080", &standby.to_string());
        Self::run(kind, config).await
    }

    /// The same, but no address is that of a proxy of ours.
    pub(super) async fn that_believes_nobody(self) -> Self {
        let config = match self.kind {
            Kind::Haproxy => put(&self.config, "src 127.0.0.0/8 ::1", "src 192.0.2.1"),
            Kind::Nginx => put(&self.config, "127.0.0.0/8 1;", "127.0.0.0/8 0;"),
        };
        Self::run(self.kind, config).await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn run(kind: Kind, config: String) -> Self {
        let folder = folder();
        // Neither can choose a port and say which; a socket that is only bound keeps this one free of others.
        let port = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        port.set_reuse_address(true).unwrap();
        port.set_reuse_port(true).unwrap();
        port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let (from, to) = match kind {
            Kind::Haproxy => ("bind :8080", format!("bind {address}")),
            Kind::Nginx => ("listen 8080;", format!("listen {address} reuseport;")),
        };
        let file = folder.path().join(kind.file());
        std::fs::write(&file, put(&config, from, &to)).unwrap();
        let mut command = kind.command(&file);
        let process = Process::spawn(kind.program(), &mut command);
        eventually(LONG, async || TcpStream::connect(address).await).await;
        Self { kind, config, address, _process: process, _port: port, _folder: folder }
    }
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy-standby.cfg",
            Self::Nginx => "nginx-standby.conf",
        }
    }

    fn command(self, file: &Path) -> Command {
        let mut command = Command::new(program(self.program()));
        match self {
            Self::Haproxy => command.args(["-db", "-f"]).arg(file),
            Self::Nginx => {
                let root = if rustix::process::getuid().is_root() { "user root; " } else { "" };
                let folder = file.parent().unwrap();
                command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(file);
                command.arg("-g").arg(format!("{root}daemon off;"))
            }
        };
        command
    }
}

/// A program of Debian's that may not be on a user's path.
pub(crate) fn program(name: &str) -> PathBuf {
    let in_sbin = Path::new("/usr/sbin").join(name);
    if in_sbin.exists() { in_sbin } else { name.into() }
}

/// A file of deploy/.
pub(crate) fn shipped(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text with something else in place of `from`, which must be there.
fn put(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the example does not say `{from}` any more");
    text.replace(from, to)
}

const NGINX_FOLDERS: &str = "proxy_temp_path proxy; fastcgi_temp_path fastcgi; \
                             uwsgi_temp_path uwsgi; scgi_temp_path scgi;";
