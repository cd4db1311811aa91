//! Notices that a file has other contents. Asks for the contents and not for events: a mounted ConfigMap changes by
//! renaming a folder far above the file, and some file systems tell nobody.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};

use crate::time::next_look;

/// See the module.
pub(super) struct FileWatch {
    path: PathBuf,
    /// What was taken up, or refused, last.
    known: Option<u64>,
    /// Seen once: it may be half written still.
    fresh: Option<u64>,
}

/// Time between two looks; what changed is taken up when it looks the same twice.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl FileWatch {
    pub(super) fn new(path: PathBuf) -> Self {
        let mut watch = Self { path, known: None, fresh: None };
        watch.seen();
        watch
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its contents now are known.
    pub(super) fn seen(&mut self) {
        self.known = self.contents();
        self.fresh = None;
    }

    /// Returns when it has contents that are not known, and did not change any more.
    pub(super) async fn changed(&mut self) {
        loop {
            next_look(LOOK_EVERY).await;
            if self.look() {
                return;
            }
        }
    }

    /// A file that cannot be read now has not changed: it may be on its way.
    fn look(&mut self) -> bool {
        let now = self.contents().filter(|now| Some(*now) != self.known);
        let settled = now.is_some() && now == self.fresh;
        self.fresh = now;
        if settled {
            self.known = now;
        }
        settled
    }

    fn contents(&self) -> Option<u64> {
        let bytes = std::fs::read(&self.path).ok()?;
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Some(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_and_has_settled_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("standin.toml");
        std::fs::write(&path, "one").unwrap();
        let mut watch = FileWatch::new(path.clone());
        assert!(!watch.look());
        std::fs::write(&path, "tw").unwrap();
        assert!(!watch.look(), "it may be half written");
        std::fs::write(&path, "two").unwrap();
        assert!(!watch.look());
        assert!(watch.look());
        assert!(!watch.look());
        std::fs::remove_file(&path).unwrap();
        assert!(!watch.look() && !watch.look());
    }

    #[test]
    fn a_folder_that_is_swapped_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("one", "1"), ("two", "2")] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::fs::write(folder.path().join(name).join("standin.toml"), text).unwrap();
        }
        let data = folder.path().join("..data");
        std::os::unix::fs::symlink("one", &data).unwrap();
        let mut watch = FileWatch::new(data.join("standin.toml"));
        let next = folder.path().join("..next");
        std::os::unix::fs::symlink("two", &next).unwrap();
        std::fs::rename(&next, &data).unwrap();
        assert!(!watch.look());
        assert!(watch.look());
    }
}
