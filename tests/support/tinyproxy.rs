//! A real egress proxy: a tinyproxy process on a port of its own. It signs what it passes on with its name (`Via`).

use std::{net::SocketAddr, process::Command};

use super::{Process, folder};

/// See the module.
pub struct Tinyproxy {
    process: Process,
    address: SocketAddr,
    name: String,
    _folder: tempfile::TempDir,
}

/// An address at which nobody listens, and nobody else will.
pub struct NobodyThere {
    address: SocketAddr,
    _bound: socket2::Socket,
}

impl Tinyproxy {
    pub async fn start(name: &str) -> Self {
        Self::with(name, "").await
    }

    /// With more lines of its configuration.
    pub async fn with(name: &str, more: &str) -> Self {
        let folder = folder();
        for _ in 0..20 {
            // It knows no port 0. Somebody may take the port in between: then it ends, and another one is tried.
            let address = {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                listener.local_addr().unwrap()
            };
            let config = format!(
                "Port {}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 500\nLogLevel Info\n\
                 ViaProxyName \"{name}\"\n{more}\n",
                address.port()
            );
            let file = folder.path().join("tinyproxy.conf");
            std::fs::write(&file, config).unwrap();
            let mut process = Process::spawn(
                "tinyproxy",
                Command::new("tinyproxy").arg("-d").arg("-c").arg(file),
            );
            if listens(&mut process).await {
                return Self { process, address, name: name.to_owned(), _folder: folder };
            }
        }
        panic!("tinyproxy finds no port");
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As pools want it, in quotes.
    pub fn url(&self) -> String {
        format!("\"{}\"", self.bare_url())
    }

    pub fn bare_url(&self) -> String {
        format!("http://{}#{}", self.address, self.name)
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn output(&self) -> String {
        self.process.output()
    }
}

async fn listens(process: &mut Process) -> bool {
    super::eventually(std::time::Duration::from_secs(20), async || {
        match process.output().contains("Accepting connections") {
            true => Some(true),
            false if process.has_ended() => Some(false),
            false => None,
        }
    })
    .await
}

impl NobodyThere {
    pub fn new() -> Self {
        let bound =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = bound.local_addr().unwrap().as_socket().unwrap();
        Self { address, _bound: bound }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// As pools want it, in quotes.
    pub fn url(&self, name: &str) -> String {
        format!("\"http://{}#{name}\"", self.address)
    }
}
