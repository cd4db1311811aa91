//! What strace wrote, as the events of a disk: names, writes and syncs of the store's files, and answers to clients.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// What happened to the disk and to clients, in order.
pub enum Event {
    /// A name that was not there.
    Create {
        name: PathBuf,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Remove {
        name: PathBuf,
    },
    /// The folder was synced.
    SyncNames,
    Write {
        file: PathBuf,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: PathBuf,
        length: usize,
    },
    /// What is written from now on this sync does not make certain.
    SyncBegins {
        file: PathBuf,
        thread: String,
    },
    Sync {
        file: PathBuf,
        thread: String,
    },
    Answer {
        id: String,
    },
}

/// The system calls to be traced.
pub const CALLS: &str = "trace=open,openat,creat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,\
    pwrite64,pwritev,write,writev,sendto,sendmsg,fdatasync,fsync,ftruncate";

/// Reads what strace wrote. A write and an answer count from the moment they began, all else from its success.
pub fn read(record: &str, database: &Path) -> Vec<Event> {
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut events = Vec::new();
    for line in record.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(call) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, call);
            if !counts_when_done(call) {
                events.extend(event(call, thread, database));
            } else {
                events.extend(begins(call, thread, database));
            }
        } else if rest.starts_with("<... ") {
            let Some(call) = begun.remove(thread) else { continue };
            if counts_when_done(call) && succeeded(rest) {
                events.extend(event(call, thread, database));
            }
        } else if !counts_when_done(rest) || succeeded(rest) {
            events.extend(begins(rest, thread, database));
            events.extend(event(rest, thread, database));
        }
    }
    events
}

fn counts_when_done(call: &str) -> bool {
    ["fdatasync", "fsync", "ftruncate", "unlink", "open", "creat", "rename", "link"]
        .iter()
        .any(|name| call.starts_with(name))
}

/// Strings are in hex, so the last `=` is the result's.
fn succeeded(call: &str) -> bool {
    let result = call.rsplit_once(" = ").map(|(_, result)| result);
    result.is_some_and(|result| result.starts_with(|first: char| first.is_ascii_digit()))
}

/// The beginning of a sync.
fn begins(call: &str, thread: &str, database: &Path) -> Option<Event> {
    match event(call, thread, database)? {
        Event::Sync { file, thread } => Some(Event::SyncBegins { file, thread }),
        _ => None,
    }
}

fn event(call: &str, thread: &str, database: &Path) -> Option<Event> {
    let (call_name, arguments) = call.split_once('(')?;
    // The lock, the reserve and the shared memory hold nothing that has to be found again.
    let is_ours = |file: &PathBuf| {
        let (file, ours) = (file.to_str().unwrap_or(""), database.to_str().unwrap());
        file.strip_prefix(ours).is_some_and(|rest| matches!(rest, "" | "-wal" | "-journal"))
    };
    let file = || file_of(arguments).filter(is_ours);
    let text = |bytes| String::from_utf8(bytes).ok();
    let mut names = strings(arguments).map_while(text).map(PathBuf::from);
    match call_name {
        "open" | "openat" | "creat" => {
            let name = names.next().filter(is_ours)?;
            assert!(!arguments.contains("O_TRUNC"), "not modelled: {call}");
            let creates = call_name == "creat" || arguments.contains("O_CREAT");
            creates.then_some(Event::Create { name })
        }
        "rename" | "renameat" | "renameat2" => {
            let (from, to) = (names.next()?, names.next()?);
            (is_ours(&from) || is_ours(&to)).then_some(Event::Rename { from, to })
        }
        "link" | "linkat" => {
            let linked = names.any(|name| is_ours(&name));
            assert!(!linked, "not modelled: {call}");
            None
        }
        "unlink" | "unlinkat" => Some(Event::Remove { name: names.next().filter(is_ours)? }),
        "pwrite64" => {
            let file = file()?;
            let (bytes, after) = string(arguments)?;
            let offset = after.split(", ").nth(2)?.split(')').next()?.trim().parse().ok()?;
            Some(Event::Write { file, offset, bytes })
        }
        "fdatasync" | "fsync" if file_of(arguments).as_deref() == database.parent() => {
            Some(Event::SyncNames)
        }
        "fdatasync" | "fsync" => Some(Event::Sync { file: file()?, thread: thread.to_owned() }),
        "ftruncate" => {
            let length = arguments.split(", ").nth(1)?;
            let digits: String = length.chars().take_while(char::is_ascii_digit).collect();
            Some(Event::Truncate { file: file()?, length: digits.parse().ok()? })
        }
        _ => {
            let sent = strings(arguments).collect::<Vec<_>>().concat();
            let answer = String::from_utf8_lossy(&sent);
            if !answer.starts_with("HTTP/1.1 201") {
                return None;
            }
            let (_, id) = answer.split_once(r#""id":""#)?;
            Some(Event::Answer { id: id.split('"').next()?.to_owned() })
        }
    }
}

/// The file behind `7</path>`; strace writes the path in hex too. None if its name is gone.
fn file_of(arguments: &str) -> Option<PathBuf> {
    let (_, rest) = arguments.split_once('<')?;
    let (path, after) = rest.split_once('>')?;
    let path = if path.starts_with("\\x") {
        String::from_utf8(unhex(path)?).ok()?
    } else {
        path.to_owned()
    };
    (!after.starts_with("(deleted)") && !path.ends_with(" (deleted)")).then(|| path.into())
}

/// The strings among the arguments.
fn strings(arguments: &str) -> impl Iterator<Item = Vec<u8>> {
    let mut rest = arguments;
    std::iter::from_fn(move || {
        let (bytes, after) = string(rest)?;
        rest = after;
        Some(bytes)
    })
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
