//! A standin process: started from a piece of configuration, killed, drained, started again on the same files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use rustix::process::Signal;
use serde_json::Value;

use super::{Answer, Client, Process, folder, lives_on_a_disk_that_does_not_live, process::binary};

/// How a standin is started. `Standin::with(config)…start().await`.
pub struct Setup {
    config: String,
    arguments: Vec<String>,
    under: Vec<String>,
    folder: Arc<Folder>,
}

/// Where the files of one standin lie; removed with the last of its standins unless it was given.
enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

/// A running (or killed) standin and its files.
pub struct Standin {
    process: Process,
    setup: Setup,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Setup {
    /// One more argument of `standin run`.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A program with its arguments that runs standin: strace, ip netns exec, prlimit …
    pub fn under<I: Into<String>>(mut self, program: impl IntoIterator<Item = I>) -> Self {
        self.under = program.into_iter().map(Into::into).collect();
        self
    }

    /// Files lie in a folder of the caller's, who also removes it.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Arc::new(Folder::Given(folder.to_owned()));
        self
    }

    pub async fn start(self) -> Standin {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        self.start_on(any, any).await
    }

    async fn start_on(self, address: SocketAddr, admin: SocketAddr) -> Standin {
        let file = self.folder.path().join("standin.toml");
        std::fs::write(&file, self.whole_config(address, admin)).unwrap();
        let mut command = match self.under.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        command.arg("run").arg("-c").arg(&file).args(&self.arguments);
        command.current_dir(self.folder.path());
        let mut process = Process::spawn("standin", &mut command);
        // One that restarts may die of a replay before it listens.
        let said = process.says_or_dies("listening on ").await;
        let address = said.map_or(address, |said| said.parse().unwrap());
        let said = process.says_or_dies("admin on ").await;
        let admin = said.map_or(admin, |said| said.parse().unwrap());
        Standin { process, setup: self, address, admin }
    }

    /// What the test wrote, and what every test needs where it wrote nothing about it.
    fn whole_config(&self, address: SocketAddr, admin: SocketAddr) -> String {
        let folder = self.folder.path();
        let mut config: toml::Table =
            self.config.replace("{folder}", folder.to_str().unwrap()).parse().unwrap_or_else(
                |error| panic!("the test's configuration: {error}\n{}", self.config),
            );
        let mut default = |section: &str, key: &str, value: String| {
            let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
            let section = section.as_table_mut().unwrap();
            section.entry(key).or_insert_with(|| value.into());
        };
        default("listen", "address", address.to_string());
        default("admin", "address", admin.to_string());
        default("store", "path", folder.join("standin.db").to_str().unwrap().to_owned());
        if lives_on_a_disk_that_does_not_live(folder) {
            default("store", "ephemeral", "accept_loss".to_owned());
        }
        config.to_string()
    }
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

impl Standin {
    /// Runs with `config`. Addresses and the store's path are filled in where it does not name them; `{folder}` in it
    /// stands for the folder of its files.
    pub async fn start(config: &str) -> Self {
        Self::with(config).start().await
    }

    /// For a start with more than a configuration.
    pub fn with(config: &str) -> Setup {
        Setup {
            config: config.to_owned(),
            arguments: Vec::new(),
            under: Vec::new(),
            folder: Arc::new(Folder::Own(folder())),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        self.setup.folder.path()
    }

    pub fn database(&self) -> PathBuf {
        self.folder().join("standin.db")
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn output(&self) -> String {
        self.process.output()
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        self.process.kill_what_it_runs();
    }

    /// SIGTERM; it drains.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Another configuration under the same name; it is read when standin is asked to, or notices.
    pub fn rewrite_config(&self, config: &str) {
        let setup = Setup {
            config: config.to_owned(),
            arguments: Vec::new(),
            under: Vec::new(),
            folder: Arc::clone(&self.setup.folder),
        };
        let file = self.folder().join("standin.toml");
        let next = self.folder().join("standin.toml.next");
        // The addresses stay as they are written: a port of 0 was given by the kernel.
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        std::fs::write(&next, setup.whole_config(any, any)).unwrap();
        std::fs::rename(&next, &file).unwrap();
    }

    /// How it ended, within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        self.process.ended(limit).await
    }

    /// Starts again on the same files and the same addresses; it must have ended.
    pub async fn restart(self) -> Self {
        self.restart_with(|setup| setup).await
    }

    /// Like [`Standin::restart`], with other arguments or another configuration.
    pub async fn restart_with(mut self, change: impl FnOnce(Setup) -> Setup) -> Self {
        assert!(self.process.has_ended(), "a standin that runs cannot be restarted");
        let (address, admin) = (self.address, self.admin);
        let setup = Setup { arguments: Vec::new(), under: Vec::new(), ..self.setup };
        change(setup).start_on(address, admin).await
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: Request<Bytes>) -> Answer {
        Client::to(self.address).send(request).await.expect("an answer from standin")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, Bytes::new())).await
    }

    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send(request(Method::POST, path, body.into())).await
    }

    pub async fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.send(json_request(Method::POST, path, body)).await
    }

    /// Asks the admin API.
    pub async fn admin_get(&self, path: &str) -> Answer {
        let request = request(Method::GET, path, Bytes::new());
        Client::to(self.admin).send(request).await.expect("an answer from the admin listener")
    }

    /// Tells the admin API.
    pub async fn admin_post(&self, path: &str, body: &Value) -> Answer {
        let request = json_request(Method::POST, path, body);
        Client::to(self.admin).send(request).await.expect("an answer from the admin listener")
    }

    pub async fn metrics(&self) -> Metrics {
        Metrics(self.admin_get("/metrics").await.text())
    }
}

/// `/metrics` as it was read.
pub struct Metrics(pub String);

impl Metrics {
    /// Sum over all series of `name` that have all of `labels`; 0 where there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let of = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(name)?;
            let (series, value) = rest.rsplit_once(' ')?;
            let mine = series.is_empty() || series.starts_with('{');
            (mine && wanted.iter().all(|label| series.contains(label.as_str())))
                .then(|| value.parse().unwrap())
        };
        self.0.lines().filter_map(of).sum()
    }
}

fn request(method: Method, path: &str, body: Bytes) -> Request<Bytes> {
    Request::builder().method(method).uri(path).body(body).unwrap()
}

fn json_request(method: Method, path: &str, body: &Value) -> Request<Bytes> {
    let mut request = request(method, path, body.to_string().into());
    let json = http::HeaderValue::from_static("application/json");
    request.headers_mut().insert(http::header::CONTENT_TYPE, json);
    request
}
