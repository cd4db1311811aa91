//! Power cuts. strace writes down every write and sync of the store's files and every answer, in order. A cut is a
//! point in that record: what was synced before it is on the disk, of each later write nobody knows, so it is left
//! out, kept or torn at sector borders. Every answer before the cut must be found on the disk rebuilt so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use super::load;
use crate::support::{App, Standin, folder, orders_config};

/// What happened to the disk and to clients, in order.
pub struct Recording {
    events: Vec<Event>,
}

/// What 200 cuts came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survivors {
    /// Cuts after which an acknowledged order was missing.
    pub lost: usize,
    /// Cuts after which SQLite found damage.
    pub damaged: usize,
    /// Cuts that had anything to cut.
    pub with_unsynced_writes: usize,
}

enum Event {
    Write { file: PathBuf, offset: usize, bytes: Vec<u8> },
    Truncate { file: PathBuf, length: usize },
    Sync { file: PathBuf },
    Remove { file: PathBuf },
    Answer { id: String },
}

/// The disk at a moment: what is certain, and what was written since the last sync.
#[derive(Default)]
struct Disk<'a> {
    certain: BTreeMap<&'a Path, Vec<u8>>,
    unsynced: BTreeMap<&'a Path, Vec<&'a Event>>,
    acknowledged: HashSet<&'a str>,
}

/// What becomes of unsynced writes.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    None,
    Some,
    Torn,
    All,
}

impl Recording {
    /// Orders while the app is down, under strace.
    pub async fn of_a_run(arguments: &[&str]) -> Self {
        let files = folder();
        let trace = files.path().join("trace");
        let calls = "trace=pwrite64,pwritev,write,writev,sendto,sendmsg,fdatasync,fsync,ftruncate,unlink,unlinkat";
        let mut strace: Vec<&str> = "strace -f -y -xx -s 4000000 -e".split(' ').collect();
        strace.extend([calls, "-o", trace.to_str().unwrap()]);
        let mut app = App::start().await;
        let setup = Standin::with(&orders_config(app.address())).folder(files.path()).under(strace);
        let setup = arguments.iter().fold(setup, |setup, argument| setup.arg(*argument));
        let mut standin = setup.start().await;
        assert_eq!(standin.get("/").await.status, 200);
        app.stop().await;
        let accepted = load(&standin, 60).await;
        standin.kill();
        let record = std::fs::read_to_string(&trace).unwrap();
        let events = read(&record, &standin.database());
        let recording = Self { events };
        let seen: HashSet<&str> = recording.ids().collect();
        let unseen = accepted.iter().filter(|id| !seen.contains(id.as_str())).count();
        assert_eq!(unseen, 0, "answers that are not in the record, of {}", accepted.len());
        recording
    }

    pub fn answers(&self) -> usize {
        self.ids().count()
    }

    /// Cuts at random points and counts what is missing.
    pub fn cut(&self, cuts: usize) -> Survivors {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut survivors = Survivors::default();
        for _ in 0..cuts {
            let disk = Disk::after(&self.events[..1 + dice.below(self.events.len())]);
            let fate = [Fate::None, Fate::Some, Fate::Torn, Fate::All][dice.below(4)];
            survivors.with_unsynced_writes += usize::from(!disk.unsynced.is_empty());
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

    fn ids(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Answer { id } => Some(id.as_str()),
            _ => None,
        })
    }
}

impl<'a> Disk<'a> {
    fn after(events: &'a [Event]) -> Self {
        let mut disk = Self::default();
        for event in events {
            match event {
                Event::Write { file, .. } | Event::Truncate { file, .. } => {
                    disk.unsynced.entry(file).or_default().push(event);
                }
                Event::Sync { file } => {
                    if let Some(writes) = disk.unsynced.remove(&**file) {
                        let image = disk.certain.entry(file).or_default();
                        writes.into_iter().for_each(|write| write.apply(image));
                    }
                }
                Event::Remove { file } => {
                    disk.certain.remove(&**file);
                    disk.unsynced.remove(&**file);
                }
                Event::Answer { id } => {
                    disk.acknowledged.insert(id);
                }
            }
        }
        disk
    }

    fn rebuild(&self, folder: &Path, fate: Fate, dice: &mut Dice) {
        let files: HashSet<&Path> =
            self.certain.keys().chain(self.unsynced.keys()).copied().collect();
        for file in files {
            let mut image = self.certain.get(file).cloned().unwrap_or_default();
            for write in self.unsynced.get(file).into_iter().flatten() {
                match fate {
                    Fate::None => {}
                    Fate::All => write.apply(&mut image),
                    Fate::Some | Fate::Torn if dice.below(2) == 0 => {}
                    Fate::Some => write.apply(&mut image),
                    Fate::Torn => write.tear(&mut image, dice),
                }
            }
            std::fs::write(folder.join(file.file_name().unwrap()), image).unwrap();
        }
    }
}

impl Event {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes, .. } => put(image, *offset, bytes),
            Self::Truncate { length, .. } => image.resize(*length, 0),
            Self::Sync { .. } | Self::Remove { .. } | Self::Answer { .. } => {}
        }
    }

    /// Half of its sectors arrive.
    fn tear(&self, image: &mut Vec<u8>, dice: &mut Dice) {
        let Self::Write { offset, bytes, .. } = self else { return self.apply(image) };
        for (number, sector) in bytes.chunks(SECTOR).enumerate() {
            if dice.below(2) == 0 {
                put(image, offset + number * SECTOR, sector);
            }
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if image.len() < offset + bytes.len() {
        image.resize(offset + bytes.len(), 0);
    }
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
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

/// Reads what strace wrote. A write and an answer count from the moment they began, a sync from its success.
fn read(record: &str, database: &Path) -> Vec<Event> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut events = Vec::new();
    for line in record.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(call) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, call);
            if !counts_when_done(call) {
                events.extend(event(call, database));
            }
        } else if rest.starts_with("<... ") {
            let Some(call) = begun.remove(thread) else { continue };
            if counts_when_done(call) && rest.contains(" = 0") {
                events.extend(event(call, database));
            }
        } else if !counts_when_done(rest) || rest.contains(" = 0") {
            events.extend(event(rest, database));
        }
    }
    events
}

fn counts_when_done(call: &str) -> bool {
    ["fdatasync", "fsync", "ftruncate", "unlink"].iter().any(|name| call.starts_with(name))
}

fn event(call: &str, database: &Path) -> Option<Event> {
    let (name, arguments) = call.split_once('(')?;
    let is_ours = |file: &PathBuf| {
        let (file, ours) = (file.to_str().unwrap_or(""), database.to_str().unwrap());
        file.strip_prefix(ours).is_some_and(|rest| matches!(rest, "" | "-wal" | "-journal"))
    };
    let file = || file_of(arguments).filter(is_ours);
    match name {
        "pwrite64" => {
            let (bytes, after) = string(arguments)?;
            let offset = after.split(", ").nth(2)?.trim_end_matches(|c: char| !c.is_ascii_digit());
            let offset = offset.split(')').next()?.parse().ok()?;
            Some(Event::Write { file: file()?, offset, bytes })
        }
        "fdatasync" | "fsync" => Some(Event::Sync { file: file()? }),
        "ftruncate" => {
            let length = arguments.split(", ").nth(1)?;
            let digits: String = length.chars().take_while(char::is_ascii_digit).collect();
            Some(Event::Truncate { file: file()?, length: digits.parse().ok()? })
        }
        "unlink" | "unlinkat" => {
            let file = PathBuf::from(String::from_utf8(string(arguments)?.0).ok()?);
            Some(Event::Remove { file }).filter(|_| is_ours(&file_named(arguments)))
        }
        _ => {
            let mut sent = Vec::new();
            let mut rest = arguments;
            while let Some((bytes, after)) = string(rest) {
                sent.extend(bytes);
                rest = after;
            }
            let answer = String::from_utf8_lossy(&sent);
            if !answer.starts_with("HTTP/1.1 201") {
                return None;
            }
            let (_, id) = answer.split_once(r#""id":""#)?;
            Some(Event::Answer { id: id.split('"').next()?.to_owned() })
        }
    }
}

fn file_named(arguments: &str) -> PathBuf {
    let name = string(arguments).and_then(|(name, _)| String::from_utf8(name).ok());
    PathBuf::from(name.unwrap_or_default())
}

/// The file behind `7</path>`; strace writes the path in hex too.
fn file_of(arguments: &str) -> Option<PathBuf> {
    let (_, rest) = arguments.split_once('<')?;
    let (path, _) = rest.split_once('>')?;
    if !path.starts_with("\\x") {
        return Some(PathBuf::from(path));
    }
    Some(PathBuf::from(String::from_utf8(unhex(path)?).ok()?))
}

/// The first string of the arguments, and what comes after it.
fn string(arguments: &str) -> Option<(Vec<u8>, &str)> {
    let (_, rest) = arguments.split_once('"')?;
    let (hex, after) = rest.split_once('"')?;
    Some((unhex(hex)?, after))
}

/// `\x68\x69`
fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.split("\\x").skip(1);
    pairs.map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

const SECTOR: usize = 512;

mod tests {
    use super::*;

    #[test]
    fn a_record_is_read() {
        let record = concat!(
            "11 pwrite64(7</d/x.db-wal>, \"\\x61\\x62\", 2, 4) = 2\n",
            "11 fsync(7</d/x.db-wal> <unfinished ...>\n",
            "12 writev(9<socket:[1]>, [{iov_base=\"\\x48\\x54\\x54\\x50\\x2f\\x31\\x2e\\x31\\x20\\x32\\x30\\x31\", ",
            "iov_len=12}, {iov_base=\"\\x22\\x69\\x64\\x22\\x3a\\x22\\x61\\x22\", iov_len=8}], 2) = 20\n",
            "11 <... fsync resumed>) = 0\n",
            "11 ftruncate(7</d/x.db-wal>, 3) = 0\n",
            "11 fsync(7</d/x.db-wal>) = -1 EIO (Input/output error)\n",
            "11 pwrite64(8</d/other>, \"\\x61\", 1, 0) = 1\n",
        );
        let events = read(record, Path::new("/d/x.db"));
        let [
            Event::Write { offset: 4, .. },
            Event::Answer { id },
            Event::Sync { .. },
            Event::Truncate { length: 3, .. },
        ] = &events[..]
        else {
            panic!("{} events", events.len());
        };
        assert_eq!(id, "a");
        let wal = Path::new("/d/x.db-wal");
        assert_eq!(Disk::after(&events[..2]).certain.get(wal), None);
        assert_eq!(Disk::after(&events[..3]).certain[wal], b"\0\0\0\0ab");
        assert_eq!(Disk::after(&events).unsynced[wal].len(), 1);
    }
}
