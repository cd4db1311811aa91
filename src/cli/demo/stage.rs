//! The processes of the demo and their folder: started here, and ended here by their ids.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use clap::ValueEnum;
use rusqlite::{Connection, OpenFlags};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

use super::{DemoArgs, DemoError, shop::Dedupe};
use crate::time::UnixMillis;

/// See the module.
pub(super) struct Stage {
    folder: PathBuf,
    shop: Option<Actor>,
    standin: Option<Actor>,
    /// Kept over the shop's death: it comes back where it was.
    shop_address: SocketAddr,
    shop_opened_at: UnixMillis,
    shop_dedupe: Dedupe,
    shop_answers_after_ms: u64,
    outputs: JoinSet<()>,
}

/// One child process that said where it listens.
struct Actor {
    child: Child,
    pid: Pid,
    address: SocketAddr,
    admin: Option<SocketAddr>,
}

impl Stage {
    pub(super) fn empty(args: &DemoArgs) -> io::Result<Self> {
        let name = format!("standin-demo-{}", uuid::Uuid::now_v7().simple());
        let folder = std::env::temp_dir().join(name);
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self {
            folder,
            shop: None,
            standin: None,
            shop_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            shop_opened_at: UnixMillis::default(),
            shop_dedupe: args.shop_dedupe,
            shop_answers_after_ms: args.shop_answers_after_ms,
            outputs: JoinSet::new(),
        })
    }

    /// Starts the shop; the second time on the port of the first, with the same ledger.
    pub(super) async fn open_shop(&mut self) -> Result<(), DemoError> {
        let mut command = self.command("shop.log")?;
        command.arg("toy-shop").arg("--ledger").arg(self.ledger_file());
        command.arg("--listen").arg(self.shop_address.to_string());
        if let Some(dedupe) = self.shop_dedupe.to_possible_value() {
            command.arg("--dedupe").arg(dedupe.get_name());
        }
        command.arg("--answers-after-ms").arg(self.shop_answers_after_ms.to_string());
        self.shop_opened_at = UnixMillis::now();
        let shop = self.start("the shop", "shop.log", command, false).await?;
        self.shop_address = shop.address;
        self.shop = Some(shop);
        Ok(())
    }

    pub(super) async fn start_standin(&mut self) -> Result<(), DemoError> {
        let file = self.folder.join("standin.toml");
        std::fs::write(&file, self.config())?;
        let mut command = self.command("standin.log")?;
        command.arg("run").arg("-c").arg(file);
        self.standin = Some(self.start("standin", "standin.log", command, true).await?);
        Ok(())
    }

    /// SIGKILL; dead when this returns.
    pub(super) async fn kill_shop(&mut self) -> Result<i32, DemoError> {
        let Some(mut shop) = self.shop.take() else {
            return Err(DemoError::Broken("there is no shop to kill".to_owned()));
        };
        shop.child.kill().await?;
        Ok(shop.pid.as_raw_nonzero().get())
    }

    /// Returns when somebody else has ended the shop.
    pub(super) async fn shop_ended(&mut self) -> Result<(), DemoError> {
        match &mut self.shop {
            Some(shop) => shop.child.wait().await.map(drop).map_err(DemoError::Io),
            None => Ok(()),
        }
    }

    /// Ends both and removes the folder; after a failure the folder stays for a look.
    pub(super) async fn end(mut self, well: bool) {
        if let Some(mut standin) = self.standin.take() {
            let asked = kill_process(standin.pid, Signal::TERM);
            if asked.is_err() || timeout(LONGEST_GOODBYE, standin.child.wait()).await.is_err() {
                let _ = standin.child.kill().await;
            }
        }
        if let Some(mut shop) = self.shop.take() {
            let _ = shop.child.kill().await;
        }
        if well {
            let _ = std::fs::remove_dir_all(&self.folder);
        } else {
            eprintln!("  files and logs are left in {}", self.folder.display());
        }
    }

    /// Where customers go.
    pub(super) fn front_door(&self) -> SocketAddr {
        self.standin.as_ref().map_or(self.shop_address, |standin| standin.address)
    }

    pub(super) fn shop_pid(&self) -> i32 {
        self.shop.as_ref().map_or(0, |shop| shop.pid.as_raw_nonzero().get())
    }

    pub(super) fn shop_opened_at(&self) -> UnixMillis {
        self.shop_opened_at
    }

    /// The ledger as the shop left it; nothing is written to it from here.
    pub(super) fn ledger(&self) -> rusqlite::Result<Connection> {
        Connection::open_with_flags(self.ledger_file(), OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    pub(super) fn who_is_who(&self) -> Vec<String> {
        let standin = self.standin.as_ref().map_or(0, |one| one.pid.as_raw_nonzero().get());
        let mut lines = vec![
            format!("  the shop  http://{}  pid {}", self.shop_address, self.shop_pid()),
            format!("  standin   http://{}  pid {standin}", self.front_door()),
            format!("  files     {}", self.folder.display()),
        ];
        if lives_in_memory(&self.folder) {
            lines.push("            (not on a disk that lives: fine for a demo)".to_owned());
        }
        lines
    }

    pub(super) fn how_to_play(&self) -> Vec<String> {
        let door = self.front_door();
        let admin = self.standin.as_ref().and_then(|standin| standin.admin);
        let admin = admin.map_or_else(String::new, |admin| format!("http://{admin}/"));
        let order = r#"{"cart_id":"mine","cents":1250,"currency":"USD"}"#;
        vec![
            String::new(),
            "  Both go on until Ctrl-C.".to_owned(),
            format!("  admin page     {admin}"),
            format!(
                "  order          curl -i http://{door}/checkout -H 'content-type: application/json' -d '{order}'"
            ),
            format!("  kill the shop  kill -9 {}", self.shop_pid()),
        ]
    }

    fn ledger_file(&self) -> PathBuf {
        self.folder.join("shop.db")
    }

    fn command(&self, log: &str) -> io::Result<Command> {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join(log))?;
        let mut command = Command::new(std::env::current_exe()?);
        // A group of its own: Ctrl-C reaches the demo, which then ends its children in order.
        command.process_group(0).current_dir(&self.folder).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        Ok(command)
    }

    async fn start(
        &mut self,
        who: &'static str,
        log: &str,
        mut command: Command,
        has_admin: bool,
    ) -> Result<Actor, DemoError> {
        let mut child = command.spawn()?;
        let ready = timeout(LONGEST_START, self.ready(&mut child, has_admin)).await;
        match ready {
            Ok(Some((pid, address, admin))) => Ok(Actor { child, pid, address, admin }),
            _ => {
                let _ = child.kill().await;
                let wrote = std::fs::read_to_string(self.folder.join(log)).unwrap_or_default();
                Err(DemoError::NotStarted { who, wrote })
            }
        }
    }

    /// Reads where it listens; what it writes after that is of no interest.
    async fn ready(
        &mut self,
        child: &mut Child,
        has_admin: bool,
    ) -> Option<(Pid, SocketAddr, Option<SocketAddr>)> {
        let pid = Pid::from_raw(i32::try_from(child.id()?).ok()?)?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let (mut address, mut admin) = (None, None);
        while address.is_none() || (has_admin && admin.is_none()) {
            let line = lines.next_line().await.ok()??;
            if let Some(rest) = line.strip_prefix("listening on ") {
                address = rest.trim().parse().ok();
            } else if let Some(rest) = line.strip_prefix("admin on ") {
                admin = rest.trim().parse().ok();
            }
        }
        self.outputs.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some((pid, address?, admin))
    }

    fn config(&self) -> String {
        let ephemeral = if lives_in_memory(&self.folder) { "accept_loss" } else { "refuse" };
        CONFIG
            .replace("{shop}", &self.shop_address.to_string())
            .replace("{store}", &self.folder.join("standin.db").display().to_string())
            .replace("{ephemeral}", ephemeral)
    }
}

/// A temporary folder is often in memory, or in a container's layer: fine for a demo, and only there.
fn lives_in_memory(folder: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    let Ok(about) = rustix::fs::statfs(folder) else { return false };
    u64::try_from(about.f_type).is_ok_and(|kind| [TMPFS, OVERLAY].contains(&kind))
}

const LONGEST_START: Duration = Duration::from_secs(10);
const LONGEST_GOODBYE: Duration = Duration::from_secs(5);

/// Short times, so that the story fits in half a minute; everything else is as a newcomer writes it.
const CONFIG: &str = r#"
[listen]
address = "127.0.0.1:0"

[admin]
address = "127.0.0.1:0"

[store]
path = "{store}"
ephemeral = "{ephemeral}"

[upstream.shop]
endpoints = ["http://{shop}"]
timeout = "2s"
late_window = "1s"
health = { interval = "250ms" }
breaker = { min_open = "250ms", max_open = "1s" }

[route.checkout]
match = "POST /checkout"
app_dedupes = { by = "x-request-id", for = "7d" }
labels = { cart = "body.cart_id" }

[route.checkout.stand_in]
accept_if = 'body.currency == "USD" && body.cents > 0 && body.cents <= 5000'
at_most = { open = 100000, open_sum = 500_000_000, sum_of = "body.cents" }
answer = { status = 201, json = { id = "{{ request.id }}", status = "accepted" } }

[route.checkout.replay]
min_backoff = "250ms"
"#;
