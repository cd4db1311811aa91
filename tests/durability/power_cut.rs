//! Power cuts. strace writes down every name, write and sync of the store's files and every answer, in order. A cut is a
//! point in that record: contents synced before it are on the disk, names of a folder synced before it too; of each
//! later write and name nobody knows, so it is left out, kept or torn at sector borders. Every answer before the cut
//! must be found on the disk rebuilt so.

mod dice;
mod disk;
mod record;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use self::{
    dice::Dice,
    disk::{Disk, Fate},
    record::{CALLS, Event, read},
};
use super::load;
use crate::support::{App, Setup, Standin, folder, orders_config};

/// What happened to the disk and to clients, in order.
pub struct Recording {
    events: Vec<Event>,
}

/// What a number of cuts came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survivors {
    /// Cuts after which an acknowledged order was missing.
    pub lost: usize,
    /// Cuts after which SQLite found damage.
    pub damaged: usize,
    /// Cuts that had anything to cut.
    pub with_unsynced_writes: usize,
    /// Cuts at which a name was not certain, while somebody had been promised something.
    pub with_unsynced_names: usize,
}

impl Recording {
    /// Orders while the app is down, under strace: on a new store; after a kill; and after a drain and a look with
    /// another program, which removes the log as SQLite's last user does, so that the next start makes a new one.
    pub async fn of_three_runs(arguments: &[&str]) -> Self {
        let files = folder();
        let mut app = App::start().await;
        let trace = |run: usize| files.path().join(format!("trace-{run}"));
        let traced = |setup: Setup, run: usize| {
            let mut strace: Vec<String> =
                "strace -f -y -xx -s 4000000 -e".split(' ').map(str::to_owned).collect();
            strace.extend([CALLS.to_owned(), "-o".into(), trace(run).display().to_string()]);
            arguments.iter().fold(setup.under(strace), |setup, argument| setup.arg(*argument))
        };
        // So small that the log is as short as it can be, and is moved into the file again and again.
        let config = format!("{}\n[store]\nmax_bytes = \"16MiB\"\n", orders_config(app.address()));
        let setup = Standin::with(&config).folder(files.path());
        let mut standin = traced(setup, 0).start().await;
        assert_eq!(standin.get("/").await.status, 200);
        app.stop().await;
        let mut accepted = load(&standin, 30).await;
        standin.kill();

        let mut standin = standin.restart_with(|setup| traced(setup, 1)).await;
        accepted.extend(load(&standin, 15).await);
        standin.terminate();
        standin.ended(super::LIMIT).await;
        let database = standin.database();
        let log = PathBuf::from(format!("{}-wal", database.display()));
        stored_ids(&database).unwrap();
        assert!(!log.exists(), "a name that is to be removed");

        let mut standin = standin.restart_with(|setup| traced(setup, 2)).await;
        accepted.extend(load(&standin, 15).await);
        standin.kill();
        let read = |run| read(&std::fs::read_to_string(trace(run)).unwrap(), &database);
        let mut events = read(0);
        events.extend(read(1));
        events.push(Event::Remove { name: log });
        events.extend(read(2));
        let recording = Self { events };
        assert!(recording.checkpoints() >= 5, "{} checkpoints", recording.checkpoints());
        let seen: HashSet<&str> = recording.ids().collect();
        let unseen = accepted.iter().filter(|id| !seen.contains(id.as_str())).count();
        assert_eq!(unseen, 0, "answers that are not in the record, of {}", accepted.len());
        recording
    }

    /// Syncs of the file itself.
    fn checkpoints(&self) -> usize {
        let is_of_file = |file: &Path| file.extension().is_some_and(|extension| extension == "db");
        let syncs = self.events.iter();
        syncs.filter(|event| matches!(event, Event::Sync { file, .. } if is_of_file(file))).count()
    }

    pub fn answers(&self) -> usize {
        self.ids().count()
    }

    /// The same, had nobody synced the folder.
    pub fn without_syncs_of_names(mut self) -> Self {
        self.events.retain(|event| !matches!(event, Event::SyncNames));
        self
    }

    /// Cuts at random points, every fourth one while a name is uncertain, and counts what is missing.
    pub fn cut(&self, cuts: usize) -> Survivors {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut survivors = Survivors::default();
        let uncertain = self.while_names_are_uncertain();
        assert!(!uncertain.is_empty(), "no name was ever uncertain");
        for cut in 0..cuts {
            let point = match cut % 4 {
                0 => uncertain[dice.below(uncertain.len())],
                _ => dice.below(self.events.len()),
            };
            let disk = Disk::after(&self.events[..=point]);
            let fate = [Fate::None, Fate::Some, Fate::Torn, Fate::All][dice.below(4)];
            survivors.with_unsynced_writes += usize::from(disk.has_unsynced_writes());
            survivors.with_unsynced_names +=
                usize::from(disk.has_unsynced_names() && !disk.acknowledged.is_empty());
            let folder = folder();
            disk.rebuild(folder.path(), fate, &mut dice);
            match stored_ids(&folder.path().join("standin.db")) {
                Ok(stored) => {
                    let missing = disk.acknowledged.iter().any(|id| !stored.contains(*id));
                    survivors.lost += usize::from(missing);
                }
                Err(error) => {
                    println!("damaged: {error}");
                    survivors.damaged += 1;
                }
            }
        }
        survivors
    }

    /// One cut late in the run, nothing unsynced kept: the folder, and what had been acknowledged.
    pub fn cut_once(&self) -> (tempfile::TempDir, Vec<String>) {
        let disk = Disk::after(&self.events[..self.events.len() * 9 / 10]);
        let folder = folder();
        disk.rebuild(folder.path(), Fate::None, &mut Dice(1));
        (folder, disk.acknowledged.iter().map(|&id| id.to_owned()).collect())
    }

    /// Points at which somebody had been promised something, and a cut may undo a change of names.
    fn while_names_are_uncertain(&self) -> Vec<usize> {
        let mut disk = Disk::default();
        let mut points = Vec::new();
        for (point, event) in self.events.iter().enumerate() {
            disk.take(event);
            if disk.has_unsynced_names() && !disk.acknowledged.is_empty() {
                points.push(point);
            }
        }
        points
    }

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Answer { id } => Some(id.as_str()),
            _ => None,
        })
    }
}

/// Request ids in the store's log, after SQLite has recovered and looked at every page.
fn stored_ids(database: &Path) -> rusqlite::Result<HashSet<String>> {
    let db = rusqlite::Connection::open(database)?;
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Err(rusqlite::Error::InvalidColumnName(check));
    }
    // Not even the schema may have reached the disk.
    if !db.table_exists(None, "log")? {
        return Ok(HashSet::new());
    }
    let mut select = db.prepare("SELECT request_id FROM log")?;
    select.query_map([], |row| row.get(0))?.collect()
}

mod tests {
    use super::*;

    fn record(lines: &[&str]) -> Vec<Event> {
        let quoted = |line: &str| -> String {
            let hex = |text: &str| text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
            let parts = line.split('\'').enumerate();
            let part = |(number, text): (usize, &str)| -> String {
                if number % 2 == 1 { hex(text) } else { text.to_owned() }
            };
            parts.map(part).collect::<Vec<_>>().join("\"")
        };
        let lines: Vec<String> = lines.iter().map(|line| quoted(line)).collect();
        read(&lines.join("\n"), Path::new("/d/x.db"))
    }

    #[test]
    fn a_record_is_read() {
        let events = record(&[
            "11 openat(AT_FDCWD</d>, '/d/x.db-wal', O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 7</d/x.db-wal>",
            "11 openat(AT_FDCWD</d>, '/d/x.db', O_RDWR|O_CREAT, 0600) = -1 EACCES (Permission denied)",
            "11 openat(AT_FDCWD</d>, '/d/x.db', O_RDWR) = 8</d/x.db>",
            "11 pwrite64(7</d/x.db-wal>, 'ab', 2, 4) = 2",
            "11 fsync(7</d/x.db-wal> <unfinished ...>",
            "12 writev(9<socket:[1]>, [{iov_base='HTTP/1.1 201', iov_len=12}, {iov_base='\x22id\x22:\x22a\x22', iov_len=8}], 2) = 20",
            "11 <... fsync resumed>) = 0",
            "11 ftruncate(7</d/x.db-wal>, 3) = 0",
            "11 fsync(7</d/x.db-wal>) = -1 EIO (Input/output error)",
            "11 pwrite64(8</d/other>, 'a', 1, 0) = 1",
            "11 fsync(9</d>) = 0",
            "11 fsync(9</>) = 0",
            "11 rename('/d/x.db-wal', '/d/x.db-journal') = 0",
            "11 unlink('/d/x.db-journal') = 0",
            "11 pwrite64(7</d/x.db-journal>(deleted), 'a', 1, 0) = 1",
        ]);
        let [
            Event::Create { name },
            Event::Write { offset: 4, .. },
            Event::SyncBegins { .. },
            Event::Answer { id },
            Event::Sync { .. },
            Event::Truncate { length: 3, .. },
            Event::SyncNames,
            Event::Rename { .. },
            Event::Remove { .. },
        ] = &events[..]
        else {
            panic!("{} events", events.len());
        };
        assert_eq!((name.to_str(), &**id), (Some("/d/x.db-wal"), "a"));
    }

    #[test]
    fn a_sync_makes_certain_what_was_written_before_it_began() {
        let events = record(&[
            "1 openat(AT_FDCWD</d>, '/d/x.db', O_RDWR|O_CREAT, 0600) = 7</d/x.db>",
            "1 fsync(8</d>) = 0",
            "1 pwrite64(7</d/x.db>, 'a', 1, 0) = 1",
            "1 fsync(7</d/x.db> <unfinished ...>",
            "2 pwrite64(9</d/x.db>, 'b', 1, 1) = 1",
            "2 fsync(9</d/x.db> <unfinished ...>",
            "1 <... fsync resumed>) = 0",
            "2 <... fsync resumed>) = 0",
        ]);
        let file = |content: &[u8]| [("/d/x.db".to_owned(), content.to_vec())];
        assert_eq!(left(&events[..events.len() - 2]), file(b""));
        assert_eq!(left(&events[..events.len() - 1]), file(b"a"));
        assert_eq!(left(&events), file(b"ab"));
    }

    /// Names and contents after a cut, with nothing kept that is not certain.
    fn left(events: &[Event]) -> Vec<(String, Vec<u8>)> {
        let disk = Disk::after(events);
        let left = disk.contents(Fate::None, &mut Dice(1)).into_iter();
        left.map(|(name, content)| (name.display().to_string(), content)).collect()
    }

    #[test]
    fn contents_and_names_are_certain_after_their_own_syncs_only() {
        let (wal, journal) = ("/d/x.db-wal".to_owned(), "/d/x.db-journal".to_owned());
        let events = record(&[
            "1 openat(AT_FDCWD</d>, '/d/x.db-wal', O_RDWR|O_CREAT, 0600) = 7</d/x.db-wal>",
            "1 pwrite64(7</d/x.db-wal>, 'ab', 2, 1) = 2",
            "1 fsync(7</d/x.db-wal>) = 0",
            "1 fsync(8</d>) = 0",
            "1 unlink('/d/x.db-wal') = 0",
            "1 openat(AT_FDCWD</d>, '/d/x.db-wal', O_RDWR|O_CREAT, 0600) = 7</d/x.db-wal>",
            "1 pwrite64(7</d/x.db-wal>, 'c', 1, 0) = 1",
            "1 fsync(7</d/x.db-wal>) = 0",
            "1 rename('/d/x.db-wal', '/d/x.db-journal') = 0",
            "1 fsync(8</d>) = 0",
        ]);
        assert_eq!(left(&events[..4]), [], "synced, but nobody finds it");
        let old = [(wal, b"\0ab".to_vec())];
        assert_eq!(left(&events[..5]), old);
        assert_eq!(left(&events[..10]), old, "the old file under the old name");
        assert_eq!(left(&events[..11]), old);
        assert_eq!(left(&events), [(journal, b"c".to_vec())]);
    }
}
