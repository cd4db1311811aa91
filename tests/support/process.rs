//! A child process whose output is kept, and which is never left behind.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::time::Instant;

use super::eventually;

/// A running program in a process group of its own.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    pub fn spawn(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({command:?}): {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            keep(child.stdout.take().unwrap(), &output),
            keep(child.stderr.take().unwrap(), &output),
        ];
        Self { name: name.to_owned(), child, output, readers }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it wrote so far, both streams as they came.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// The rest of the first line that starts with `prefix`.
    pub async fn says(&mut self, prefix: &str) -> String {
        self.line(prefix, |line| line.strip_prefix(prefix)).await
    }

    /// The rest of the first line that has `word` anywhere.
    pub async fn says_somewhere(&mut self, word: &str) -> String {
        self.line(word, |line| line.split_once(word).map(|(_, rest)| rest)).await
    }

    /// Like [`Process::says`]. None: before that it died where it was told to die.
    pub async fn says_or_dies(&mut self, prefix: &str) -> Option<String> {
        self.line_or_death(prefix, |line| line.strip_prefix(prefix)).await
    }

    async fn line(&mut self, what: &str, rest: impl Fn(&str) -> Option<&str>) -> String {
        let line = self.line_or_death(what, rest).await;
        line.unwrap_or_else(|| panic!("{} died before it said `{what}`", self.name))
    }

    async fn line_or_death(
        &mut self,
        what: &str,
        rest: impl Fn(&str) -> Option<&str>,
    ) -> Option<String> {
        let limit = Duration::from_secs(30);
        eventually(limit, async || -> Result<Option<String>, String> {
            let written = self.output();
            let line = written.lines().find_map(&rest);
            match line {
                Some(rest) => Ok(Some(rest.trim().to_owned())),
                None if self.has_ended() => {
                    let (how, written) = (self.child.wait(), self.whole_output());
                    if written.lines().any(|line| line.starts_with("failpoint ")) {
                        return Ok(None);
                    }
                    panic!("{} ended ({how:?}) before it said `{what}`:\n{written}", self.name)
                }
                None => Err(format!("{} never said `{what}`, but:\n{written}", self.name)),
            }
        })
        .await
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
    }

    /// Kills what it runs (standin under strace), so that it ends by itself and flushes what it has.
    pub fn kill_what_it_runs(&mut self) {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for child in children.split_whitespace() {
            let child = Pid::from_raw(child.parse().unwrap()).unwrap();
            let _ = kill_process(child, Signal::KILL);
        }
        if children.trim().is_empty() {
            self.kill();
        } else {
            self.child.wait().unwrap();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        // An error means that it has ended by itself.
        let _ = kill_process_group(group, signal);
    }

    /// From now on it does nothing until it gets [`Signal::CONT`]. A thread that waits is stopped a moment after the signal.
    pub fn stand_still(&self) {
        self.signal(Signal::STOP);
        let threads = || std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let is_stopped = |thread: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        let started = Instant::now();
        while !threads().all(is_stopped) {
            assert!(started.elapsed() < Duration::from_secs(20), "{} goes on", self.name);
            std::thread::yield_now();
        }
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// How it ended, within `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let name = self.name.clone();
        eventually(limit, async || {
            self.child.try_wait().unwrap().ok_or_else(|| format!("{name} still runs"))
        })
        .await
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most resident memory, in bytes, since its start or [`Process::forget_the_peak`].
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn forget_the_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// All it wrote; it must have ended.
    pub fn whole_output(&mut self) -> String {
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        self.output()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- what {} wrote ----\n{}", self.name, self.output());
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "reads a child's output until it ends")]
fn keep(
    from: impl Read + Send + 'static,
    into: &Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let mut output = into.lock().unwrap();
            if output.len() < MOST_OUTPUT {
                output.push_str(&String::from_utf8_lossy(&line));
                output.push('\n');
            }
        }
    })
}

/// A new folder on the disk of the build, which lives when /tmp may not.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("test-")
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .expect("a folder under target/")
}

/// Whether files in `path` would not survive: then a standin refuses to stand in unless told to accept it.
pub fn lives_on_a_disk_that_does_not_live(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const OVERLAY: u64 = 0x794c_7630;
    let kind = rustix::fs::statfs(path).map(|about| about.f_type).unwrap_or_default();
    [TMPFS, OVERLAY].contains(&u64::try_from(kind).unwrap_or_default())
}

/// The product under test.
pub fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_standin"))
}

const MOST_OUTPUT: usize = 4 << 20;
