//! A file system for SQLite that is the system's own, except that a commit reaches the write-ahead log in few writes.
//!
//! SQLite writes each frame of its log in two: 24 bytes of header, and a page
//! ([file format, section 4.1](https://www.sqlite.org/fileformat2.html#the_write_ahead_log)). A batch of a hundred orders is
//! sixty system calls and more of it spent in them than in the sync. Within [`gather`] the frames are put together and
//! written when the last one is complete, before SQLite is told that it is.
//!
//! What SQLite relies on stays as it is: bytes and their places, the order of writes and syncs, and that an error of a
//! write is told before anybody may call the commit one. Files other than the log are the system's own.

mod file;
mod frames;

use std::{
    ffi::{CStr, c_int},
    sync::OnceLock,
};

pub use frames::gather;

/// Makes the file system known to SQLite and gives the name by which connections are opened with it
/// ([`rusqlite::Connection::open_with_flags_and_vfs`]). The error is SQLite's code.
pub fn register() -> Result<&'static CStr, c_int> {
    static REGISTERED: OnceLock<Result<(), c_int>> = OnceLock::new();
    REGISTERED.get_or_init(file::register).map(|()| file::NAME)
}

#[cfg(test)]
mod tests;
