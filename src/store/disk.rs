//! The file's surroundings: the lock beside it, who may read it, what kind of disk it lies on, and how much room is left.

use std::{
    fs::{File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::StoreError;

/// Held as long as the store is open: a second standin on the same file is refused. The system lets go of it when the
/// process ends, however it ends.
#[derive(Debug)]
pub(super) struct LockFile {
    _file: File,
    store: Option<File>,
}

impl LockFile {
    pub(super) fn take(store: &Path) -> Result<Self, StoreError> {
        let path = beside(store, "lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(OWNER_ONLY)
            .open(&path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    let folder = folder(store).display();
                    StoreError::Failed(format!(
                        "its folder {folder} is not there: make it, and restart"
                    ))
                }
                _ => failed(&path, &error),
            })?;
        lock(&file, &path, store)?;
        Ok(Self { _file: file, store: None })
    }

    /// Locks the store itself, too: whoever removes the lock file lets nobody in. SQLite has locks of another kind, which
    /// would go with this handle if it were closed before SQLite's own.
    pub(super) fn hold(&mut self, store: &Path) -> Result<(), StoreError> {
        let metadata = store.metadata().map_err(|error| failed(store, &error))?;
        if !metadata.is_file() {
            return Err(StoreError::Failed(format!("{} is no file", store.display())));
        }
        // Elsewhere both kinds of locks may be one, and SQLite would find its file locked.
        if cfg!(target_os = "linux") {
            let file = File::open(store).map_err(|error| failed(store, &error))?;
            lock(&file, store, store)?;
            self.store = Some(file);
        }
        Ok(())
    }
}

fn lock(file: &File, path: &Path, store: &Path) -> Result<(), StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(store.to_owned())),
        Err(TryLockError::Error(error)) => {
            Err(StoreError::Failed(format!("{}: cannot be locked: {error}", path.display())))
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("{}: {error}", path.display()))
}

/// Which files stand under the names of an open store. What is written to one that lost its name is gone with the process.
#[derive(Debug)]
pub(super) struct Places([(PathBuf, Option<FileId>); 3]);

/// Device and number.
type FileId = (u64, u64);

impl Places {
    pub(super) fn of(store: &Path) -> Self {
        let names = [store.to_owned(), beside(store, "-wal"), beside(store, "-shm")];
        Self(names.map(|name| {
            let id = file_id(&name);
            (name, id)
        }))
    }

    /// Says which name leads to another file than before, or to none. One that SQLite had not made yet is new.
    pub(super) fn why_moved(&mut self) -> Option<String> {
        self.0.iter_mut().find_map(|(name, known)| {
            let found = file_id(name);
            let moved = known.is_some() && *known != found;
            *known = known.or(found);
            moved.then(|| format!("{} was moved, removed or replaced", name.display()))
        })
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Makes the file if there is none, readable by its owner only: it holds requests as they came. Must happen before SQLite
/// opens it: closing any other handle of an open database file would drop SQLite's locks.
pub(super) fn create(store: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(store) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Takes an existing file and its log from all but their owner. Only for what is known to be a store: a file of another
/// program, or a folder, keeps its mode. SQLite gives a new log the mode of the file.
pub(super) fn secure(store: &Path) -> io::Result<()> {
    for path in [store.to_owned(), beside(store, "-wal"), beside(store, "-shm")] {
        tighten(&path)?;
    }
    Ok(())
}

fn tighten(path: &Path) -> io::Result<()> {
    let mode = match path.metadata() {
        Ok(metadata) => metadata.permissions().mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "readable by others: now by its owner only");
        std::fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
    }
    Ok(())
}

/// `standin.db-wal`, `standin.db.lock` …
pub(super) fn beside(store: &Path, what: &str) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    if !what.starts_with('-') {
        name.push(".");
    }
    name.push(what);
    PathBuf::from(name)
}

/// What the disk under a file promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "told apart on Linux only"))]
pub(super) enum DiskKind {
    Lasting,
    /// Gone with the machine or the container.
    Ephemeral(&'static str),
    /// SQLite's log does not work there.
    Network(&'static str),
}

/// The kind of file system under the file's folder.
#[cfg(target_os = "linux")]
pub(super) fn kind(store: &Path) -> io::Result<DiskKind> {
    // The constants of statfs(2); their type differs between platforms, their 32 bits do not.
    let found = rustix::fs::statfs(folder(store))?;
    let kind = (found.f_type as u64) & 0xffff_ffff;
    Ok(match kind {
        0x0102_1994 => DiskKind::Ephemeral("tmpfs"),
        0x8584_58f6 => DiskKind::Ephemeral("ramfs"),
        0x794c_7630 => DiskKind::Ephemeral("overlay"),
        0x6969 => DiskKind::Network("nfs"),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => DiskKind::Network("cifs"),
        0x0102_1997 => DiskKind::Network("9p"),
        0x00c3_6400 => DiskKind::Network("ceph"),
        0x6573_5546 => DiskKind::Network("fuse"),
        _ => DiskKind::Lasting,
    })
}

/// Unknown elsewhere: believed to last.
#[cfg(not(target_os = "linux"))]
pub(super) fn kind(_store: &Path) -> io::Result<DiskKind> {
    Ok(DiskKind::Lasting)
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// The file and its log.
    pub(super) used: u64,
    /// What the file system has left for us.
    pub(super) free: u64,
    /// What the file system has in all.
    pub(super) total: u64,
}

pub(super) fn room(store: &Path) -> io::Result<Room> {
    let size = |path: &Path| path.metadata().map_or(0, |metadata| metadata.len());
    let system = rustix::fs::statvfs(folder(store))?;
    Ok(Room {
        used: size(store) + size(&beside(store, "-wal")),
        free: system.f_bavail.saturating_mul(system.f_frsize),
        total: system.f_blocks.saturating_mul(system.f_frsize),
    })
}

impl Room {
    /// Below this much free space nothing new is accepted: the marks of what is `open` need room too, and so do other
    /// programs.
    pub(super) fn low_water(self, open: u64) -> u64 {
        (self.total / 20).min(64 << 20) + open.saturating_mul(MARKS_OF_ONE)
    }
}

/// How long the write-ahead log may become: about 4 MB, less on a tiny disk.
pub(super) fn wal_bytes(store: &Path, max_bytes: u64) -> u64 {
    let total = room(store).map_or(u64::MAX, |room| room.total);
    (total.min(max_bytes) / 32).clamp(256 << 10, 4 << 20)
}

/// Room kept for marks: a file beside the store that is given up when the disk is full, so that what was sent can be
/// written down all the same.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// Enough to move a long log into the file, which gives the log's own room back, and something for marks.
    pub(super) fn new(store: &Path, max_bytes: u64) -> Self {
        let wal = wal_bytes(store, max_bytes);
        Self { path: beside(store, "reserve"), bytes: wal * 2 + wal / 2 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the room is really taken.
    pub(super) fn is_kept(&self) -> bool {
        self.path.metadata().is_ok_and(|metadata| metadata.len() >= self.bytes)
    }

    /// Takes the room: blocks, not a hole.
    pub(super) fn keep(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(OWNER_ONLY)
            .open(&self.path)?;
        let kept = take_blocks(&file, self.bytes);
        if kept.is_err() {
            file.set_len(0)?;
        }
        kept
    }

    /// Gives it up for marks.
    pub(super) fn give_up(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file.set_len(0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(target_os = "linux")]
fn take_blocks(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::empty(), 0, bytes.max(1)) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, bytes),
        taken => Ok(taken?),
    }
}

#[cfg(not(target_os = "linux"))]
fn take_blocks(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes)
}

fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    let zeros = [0; 1 << 16];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(zeros.len() as u64);
        io::Write::write_all(&mut file, &zeros[..now as usize])?;
        left -= now;
    }
    Ok(())
}

fn folder(store: &Path) -> &Path {
    match store.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

const OWNER_ONLY: u32 = 0o600;
/// What the marks of one entry take, from `sending` to its end.
const MARKS_OF_ONE: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("standin.db");
        let first = LockFile::take(&store).unwrap();
        assert!(matches!(LockFile::take(&store), Err(StoreError::InUse(path)) if path == store));
        drop(first);
        LockFile::take(&store).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_disk_in_memory_is_known_as_such() {
        let kind = kind(Path::new("/dev/shm/standin.db")).unwrap();
        assert_eq!(kind, DiskKind::Ephemeral("tmpfs"));
    }

    #[test]
    fn a_file_that_lost_its_name_is_missed_until_it_has_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("standin.db");
        let elsewhere = folder.path().join("elsewhere");
        create(&store).unwrap();
        let mut places = Places::of(&store);
        std::fs::write(beside(&store, "-wal"), "made later").unwrap();
        assert_eq!(places.why_moved(), None);
        std::fs::rename(&store, &elsewhere).unwrap();
        assert!(places.why_moved().is_some());
        std::fs::copy(&elsewhere, &store).unwrap();
        assert!(places.why_moved().is_some(), "a copy is another file");
        std::fs::rename(&elsewhere, &store).unwrap();
        assert_eq!(places.why_moved(), None);
        std::fs::remove_file(beside(&store, "-wal")).unwrap();
        assert!(places.why_moved().unwrap().contains("standin.db-wal"));
    }

    #[test]
    fn files_are_the_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("standin.db");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        create(&store).unwrap();
        assert_eq!(mode(&store), 0o600);
        std::fs::set_permissions(&store, Permissions::from_mode(0o644)).unwrap();
        secure(&store).unwrap();
        assert_eq!(mode(&store), 0o600);
    }

    #[test]
    fn ballast_takes_blocks_and_gives_them_back() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("standin.db");
        let ballast = Ballast::new(&store, 16 << 20);
        assert_eq!(ballast.bytes(), 5 << 18);
        ballast.give_up().unwrap();
        assert!(!ballast.is_kept());
        ballast.keep().unwrap();
        assert!(ballast.is_kept());
        let blocks = beside(&store, "reserve").metadata().unwrap().blocks();
        assert!(blocks * 512 >= 5 << 18, "{blocks}");
        ballast.give_up().unwrap();
        assert!(!ballast.is_kept());
    }
}
