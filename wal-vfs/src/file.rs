//! The two tables of functions that SQLite calls: the file system, and the log as a file. The system's file lies behind ours
//! in the same piece of memory, which SQLite makes as long as `szOsFile` says.

use std::{
    ffi::{CStr, c_int, c_void},
    ptr::null_mut,
    slice,
};

use rusqlite::ffi::{
    SQLITE_ERROR, SQLITE_IOERR, SQLITE_OK, SQLITE_OPEN_WAL, sqlite3_file, sqlite3_filename,
    sqlite3_initialize, sqlite3_int64, sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find,
    sqlite3_vfs_register,
};

use crate::frames;

pub(crate) const NAME: &CStr = c"gathered-log";

/// The system's file system with another way to open, and who it was.
#[repr(C)]
struct FileSystem {
    base: sqlite3_vfs,
    system: *mut sqlite3_vfs,
}

/// What lies before the system's file.
const BEFORE: usize = size_of::<sqlite3_file>();
const _: () = assert!(BEFORE.is_multiple_of(align_of::<u64>()), "what lies behind it is aligned");

pub(crate) fn register() -> Result<(), c_int> {
    // SAFETY: may be called at any time, by any thread.
    let ready = unsafe { sqlite3_initialize() };
    if ready != SQLITE_OK {
        return Err(ready);
    }
    // SAFETY: SQLite is initialised; no name means the default.
    let system = unsafe { sqlite3_vfs_find(std::ptr::null()) };
    if system.is_null() {
        return Err(SQLITE_ERROR);
    }
    // SAFETY: a registered file system stays where it is. All functions of a copy find what they need: those of the
    // system's own use `pAppData` and `mxPathname` of the table that they are called with.
    let mut base = unsafe { *system };
    base.szOsFile += c_int::try_from(BEFORE).map_err(|_| SQLITE_ERROR)?;
    base.pNext = null_mut();
    base.zName = NAME.as_ptr();
    base.xOpen = Some(open);
    // SQLite keeps the pointer for as long as the process lives.
    let ours = Box::into_raw(Box::new(FileSystem { base, system }));
    // SAFETY: `base` comes first in a `repr(C)` struct that is never freed.
    match unsafe { sqlite3_vfs_register(ours.cast(), 0) } {
        SQLITE_OK => Ok(()),
        refused => Err(refused),
    }
}

/// Only the log is ours. Any other file is opened in the place that SQLite gave, as if we were not there.
unsafe extern "C" fn open(
    ours: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls with the table that was registered, which is the first field of a `FileSystem`.
    let system = unsafe { (*ours.cast::<FileSystem>()).system };
    // SAFETY: the system's own table stays where it is.
    let Some(open) = (unsafe { (*system).xOpen }) else {
        return SQLITE_ERROR;
    };
    if flags & SQLITE_OPEN_WAL == 0 {
        // SAFETY: what SQLite gave us goes on as it is; the place is longer than it has to be.
        return unsafe { open(system, name, file, flags, out_flags) };
    }
    // SAFETY: the place is `szOsFile` bytes long, which is `BEFORE` and what the system's file needs.
    let opened = unsafe { open(system, name, behind(file), flags, out_flags) };
    // SAFETY: as above. SQLite closes a file that has methods, and no other.
    unsafe { (*file).pMethods = if opened == SQLITE_OK { &LOG } else { std::ptr::null() } };
    opened
}

/// The system's file of one of ours.
///
/// # Safety
/// `file` is the place that SQLite gave to [`open`].
unsafe fn behind(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the place goes on behind ours.
    unsafe { file.byte_add(BEFORE) }
}

/// Calls a method of the system's file.
macro_rules! system {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite gives the file that `open` made, until it has closed it.
        let file = unsafe { behind($file) };
        // SAFETY: the system's `xOpen` succeeded and has set its methods, which are static.
        match unsafe { (*(*file).pMethods).$method } {
            // SAFETY: the arguments are those that SQLite gave for the same method, or a slice's.
            Some(method) => unsafe { method(file $(, $argument)*) },
            None => SQLITE_IOERR,
        }
    }};
}

fn write_through(file: *mut sqlite3_file) -> impl FnMut(&[u8], i64) -> c_int {
    move |bytes, at| match c_int::try_from(bytes.len()) {
        Ok(length) => system!(file, xWrite, bytes.as_ptr().cast(), length, at),
        Err(_) => SQLITE_IOERR,
    }
}

fn settle(file: *mut sqlite3_file) -> c_int {
    frames::settle(file.addr(), write_through(file))
}

/// A method before which everything has to be in its place.
macro_rules! settled {
    ($file:expr, $($call:tt)*) => {
        match settle($file) {
            SQLITE_OK => system!($file, $($call)*),
            failed => failed,
        }
    };
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    let Ok(length) = usize::try_from(length) else {
        return SQLITE_IOERR;
    };
    // SAFETY: SQLite gives that many bytes, and nobody changes them before we return.
    let bytes = unsafe { slice::from_raw_parts(bytes.cast::<u8>(), length) };
    frames::write(file.addr(), bytes, at, write_through(file))
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    into: *mut c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    settled!(file, xRead, into, length, at)
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    settled!(file, xTruncate, size)
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    settled!(file, xSync, flags)
}

unsafe extern "C" fn size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    settled!(file, xFileSize, size)
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let settled = settle(file);
    let closed = system!(file, xClose);
    if settled == SQLITE_OK { closed } else { settled }
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    system!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    system!(file, xUnlock, level)
}

unsafe extern "C" fn is_reserved(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    system!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn control(file: *mut sqlite3_file, what: c_int, with: *mut c_void) -> c_int {
    system!(file, xFileControl, what, with)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    system!(file, xSectorSize)
}

unsafe extern "C" fn characteristics(file: *mut sqlite3_file) -> c_int {
    system!(file, xDeviceCharacteristics)
}

/// The first version of the table: a log is neither mapped nor shared, that is the database's.
static LOG: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(is_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};
