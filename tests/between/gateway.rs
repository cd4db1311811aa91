//! A real proxy between standin and the app: an nginx or HAProxy process on a port of its own.

use std::{net::SocketAddr, process::Command, time::Duration};

use socket2::Socket;
use tokio::net::TcpStream;

use crate::{
    standby::router::program,
    support::{Process, eventually, folder},
};

/// See the module.
pub(super) struct Gateway {
    address: SocketAddr,
    _process: Process,
    _port: Socket,
    _folder: tempfile::TempDir,
}

impl Gateway {
    pub(super) async fn nginx(app: SocketAddr) -> Self {
        Self::run("nginx", |at| {
            let root = if rustix::process::getuid().is_root() { "user root; " } else { "" };
            format!(
                "{root}daemon off; worker_processes 1; pid nginx.pid; events {{}} http {{ access_log off; \
                 client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; \
                 scgi_temp_path s; server {{ listen {at} reuseport; location / {{ \
                 proxy_pass http://{app}; proxy_read_timeout 300ms; proxy_next_upstream off; }} }} }}"
            )
        })
        .await
    }

    pub(super) async fn haproxy(app: SocketAddr) -> Self {
        Self::run("haproxy", |at| {
            format!(
                "defaults\n mode http\n retries 0\n timeout connect 1s\n timeout client 5s\n timeout server 300ms\n\
                 listen gateway\n bind {at}\n server app {app}\n"
            )
        })
        .await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    async fn run(name: &str, config: impl Fn(SocketAddr) -> String) -> Self {
        let folder = folder();
        // Neither can choose a port and say which; a socket that is only bound keeps this one free of others.
        let port = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        port.set_reuse_address(true).unwrap();
        port.set_reuse_port(true).unwrap();
        port.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = port.local_addr().unwrap().as_socket().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, config(address)).unwrap();
        let mut command = Command::new(program(name));
        match name {
            "nginx" => command.arg("-p").arg(folder.path()).args(["-e", "stderr", "-c"]).arg(&file),
            _ => command.args(["-db", "-f"]).arg(&file),
        };
        let process = Process::spawn(name, &mut command);
        eventually(Duration::from_secs(20), async || TcpStream::connect(address).await).await;
        Self { address, _process: process, _port: port, _folder: folder }
    }
}
