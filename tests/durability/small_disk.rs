//! A small disk of its own: a tmpfs in a mount namespace that lives as long as the process that holds it, so that
//! nothing is left behind however the test ends.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Process, folder};

/// See the module.
pub struct SmallDisk {
    holder: Process,
    mount_point: tempfile::TempDir,
}

impl SmallDisk {
    pub async fn mount(size: &str) -> Self {
        let mount_point = folder();
        let mut unshare = Command::new("unshare");
        if !is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        let mount = format!(
            "mount -t tmpfs -o size={size} tmpfs '{}' && echo mounted && exec sleep infinity",
            mount_point.path().display()
        );
        unshare.args(["--mount", "sh", "-c", &mount]);
        let mut holder = Process::spawn("the holder of a small disk", &mut unshare);
        holder.says("mounted").await;
        Self { holder, mount_point }
    }

    /// Its folder as a process started through [`SmallDisk::enter`] sees it.
    pub fn inside(&self) -> &Path {
        self.mount_point.path()
    }

    /// The program that runs another one where the disk is mounted.
    pub fn enter(&self) -> Vec<String> {
        let mut enter = vec!["nsenter".to_owned(), "--mount".to_owned()];
        if !is_root() {
            enter.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        enter.extend(["--target".to_owned(), self.holder.pid().to_string(), "--".to_owned()]);
        enter
    }

    /// Uses up all that is left.
    pub fn fill(&self) {
        let mut ballast = std::fs::File::create(self.seen_from_here("ballast")).unwrap();
        for size in [64 << 10, 4 << 10, 512] {
            while ballast.write_all(&vec![1; size]).is_ok() {}
        }
    }

    pub fn free(&self) {
        std::fs::remove_file(self.seen_from_here("ballast")).unwrap();
    }

    fn seen_from_here(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.pid()));
        root.join(self.inside().strip_prefix("/").unwrap()).join(name)
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
