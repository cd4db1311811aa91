//! Frames of one commit, put together. Knows nothing of SQLite's types: it is given bytes, their place, and a way to write.
//!
//! Nothing is kept back longer than a commit. The last frame says of itself that it is the last, and takes all of them
//! with it; what a failed commit leaves behind is forgotten, for the log ends before it and others may write there.

use std::{cell::RefCell, ffi::c_int};

/// Runs a commit. Frames of the log that this thread writes meanwhile are put together. The commit must be of one
/// transaction, and nothing else; within it, calls do not nest.
pub fn gather<T>(commit: impl FnOnce() -> T) -> T {
    let _scope = Scope::begin();
    commit()
}

thread_local! {
    static FRAMES: RefCell<Frames> = const { RefCell::new(Frames::new()) };
}

/// What may have been gathered for a file (by its address) is written before anything else happens to it.
pub(crate) fn settle(file: usize, write: impl FnMut(&[u8], i64) -> c_int) -> c_int {
    // A thread that ends may close its connections after it has dropped these; then nothing is gathered.
    FRAMES.try_with(|frames| frames.borrow_mut().settle(file, write)).unwrap_or(OK)
}

/// A write to the log.
pub(crate) fn write(
    file: usize,
    bytes: &[u8],
    at: i64,
    mut write: impl FnMut(&[u8], i64) -> c_int,
) -> c_int {
    FRAMES
        .try_with(|frames| frames.borrow_mut().write(file, bytes, at, &mut write))
        .unwrap_or_else(|_| write(bytes, at))
}

struct Scope;

impl Scope {
    fn begin() -> Self {
        FRAMES.with_borrow_mut(|frames| frames.phase = Phase::Begun);
        Self
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        FRAMES.with_borrow_mut(Frames::end);
    }
}

/// See the module.
#[derive(Debug)]
struct Frames {
    phase: Phase,
    file: usize,
    at: i64,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody gathers: writes go where they go.
    Over,
    Begun,
    /// The header of the commit's last frame was seen; its page is next.
    Last,
}

impl Frames {
    const fn new() -> Self {
        Self { phase: Phase::Over, file: 0, at: 0, bytes: Vec::new() }
    }

    fn write(
        &mut self,
        file: usize,
        bytes: &[u8],
        at: i64,
        mut write: impl FnMut(&[u8], i64) -> c_int,
    ) -> c_int {
        let is_other = !self.bytes.is_empty() && self.file != file;
        if self.phase == Phase::Over || is_other || bytes.len() > MOST {
            let settled = self.settle(file, &mut write);
            return if settled == OK { write(bytes, at) } else { settled };
        }
        if !self.continues_at(at) || self.bytes.len() + bytes.len() > MOST {
            let settled = self.settle(file, &mut write);
            if settled != OK {
                return settled;
            }
        }
        if self.bytes.is_empty() {
            (self.file, self.at) = (file, at);
        }
        self.bytes.extend_from_slice(bytes);
        if self.phase == Phase::Last {
            self.phase = Phase::Over;
            return self.settle(file, write);
        }
        if is_header_of_last(bytes) {
            self.phase = Phase::Last;
        }
        OK
    }

    fn settle(&mut self, file: usize, mut write: impl FnMut(&[u8], i64) -> c_int) -> c_int {
        if self.bytes.is_empty() || self.file != file {
            return OK;
        }
        let written = write(&self.bytes, self.at);
        // Also where that failed: whoever is told so does not come back for these.
        self.bytes.clear();
        written
    }

    fn continues_at(&self, at: i64) -> bool {
        i64::try_from(self.bytes.len()).is_ok_and(|length| self.at.checked_add(length) == Some(at))
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        self.bytes.clear();
    }
}

/// A frame's header has the size of the file, in pages, if a commit ends with it, else zero (file format, section 4.1).
fn is_header_of_last(bytes: &[u8]) -> bool {
    bytes.len() == HEADER && bytes[4..8] != [0; 4]
}

/// `SQLITE_OK`.
const OK: c_int = 0;
/// Bytes of a frame's header.
const HEADER: usize = 24;
/// Bytes that are gathered at most. The system's file system of SQLite writes up to 0x1ffff at once.
const MOST: usize = 0x1ffff;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: usize = 1;
    const FULL: c_int = 13;

    /// A disk that notes each write.
    #[derive(Default)]
    struct Disk {
        content: Vec<u8>,
        writes: usize,
    }

    impl Disk {
        fn take(&mut self) -> impl FnMut(&[u8], i64) -> c_int {
            |bytes, at| {
                let at = usize::try_from(at).unwrap();
                let end = at + bytes.len();
                self.content.resize(self.content.len().max(end), 0);
                self.content[at..end].copy_from_slice(bytes);
                self.writes += 1;
                OK
            }
        }
    }

    fn begun() -> Frames {
        Frames { phase: Phase::Begun, ..Frames::new() }
    }

    fn header(pages_after: u32) -> [u8; HEADER] {
        let mut header = [7; HEADER];
        header[4..8].copy_from_slice(&pages_after.to_be_bytes());
        header
    }

    /// Headers and pages of a commit from `at` on.
    fn commit(frames: &mut Frames, disk: &mut Disk, count: usize, mut at: i64) -> i64 {
        for number in 1..=count {
            for bytes in [&header(if number == count { 9 } else { 0 })[..], &[1; 4096]] {
                assert_eq!(frames.write(FILE, bytes, at, disk.take()), OK);
                at += i64::try_from(bytes.len()).unwrap();
            }
        }
        at
    }

    #[test]
    fn the_last_frame_takes_all_of_them_with_it() {
        let (mut frames, mut disk) = (begun(), Disk::default());
        let end = commit(&mut frames, &mut disk, 20, 32);
        assert_eq!(disk.writes, 1);
        assert_eq!(i64::try_from(disk.content.len()).unwrap(), end);
        assert_eq!(frames.phase, Phase::Over, "what comes now is not of this commit");
    }

    #[test]
    fn what_is_too_long_for_one_write_is_more_of_them() {
        let (mut frames, mut disk) = (begun(), Disk::default());
        let end = commit(&mut frames, &mut disk, 70, 32);
        assert_eq!(disk.writes, 3);
        assert_eq!(i64::try_from(disk.content.len()).unwrap(), end);
    }

    #[test]
    fn outside_of_a_commit_nothing_is_kept_back() {
        let (mut frames, mut disk) = (Frames::new(), Disk::default());
        assert_eq!(frames.write(FILE, &header(0), 32, disk.take()), OK);
        assert_eq!((disk.writes, frames.bytes.len()), (1, 0));
    }

    #[test]
    fn what_a_commit_left_behind_is_never_written() {
        let (mut frames, mut disk) = (begun(), Disk::default());
        assert_eq!(frames.write(FILE, &header(0), 32, disk.take()), OK);
        frames.end();
        assert_eq!(frames.settle(FILE, disk.take()), OK);
        assert_eq!(disk.writes, 0);
    }

    #[test]
    fn a_scope_ends_where_its_commit_panics() {
        let panicked = std::panic::catch_unwind(|| gather(|| panic!("a bug")));
        assert!(panicked.is_err());
        FRAMES.with_borrow(|frames| assert_eq!(frames.phase, Phase::Over));
    }

    #[test]
    fn an_error_is_told_by_the_write_of_the_last_frame() {
        let (mut frames, mut disk) = (begun(), Disk::default());
        assert_eq!(frames.write(FILE, &header(1), 32, disk.take()), OK);
        assert_eq!(frames.write(FILE, &[1; 512], 56, |_, _| FULL), FULL);
        assert_eq!(frames.settle(FILE, disk.take()), OK);
        assert_eq!(disk.writes, 0, "SQLite was told that they are not there");
    }

    #[test]
    fn another_file_does_not_get_what_is_not_its_own() {
        let (mut frames, mut log, mut other) = (begun(), Disk::default(), Disk::default());
        assert_eq!(frames.write(FILE, &header(0), 0, log.take()), OK);
        assert_eq!(frames.write(2, b"ab", 0, other.take()), OK);
        assert_eq!(frames.settle(2, other.take()), OK);
        assert_eq!(other.content, b"ab");
        assert_eq!(frames.settle(FILE, log.take()), OK);
        assert_eq!(log.content, header(0));
    }

    proptest! {
        /// Whatever is written in whatever order, the file is what it would have been. SQLite writes no empty piece.
        #[test]
        fn the_file_is_as_without_us(
            writes in prop::collection::vec((0_usize..3000, 1_usize..60, any::<u8>(), any::<bool>()), 1..60),
            begin in any::<bool>(),
        ) {
            let mut frames = if begin { begun() } else { Frames::new() };
            let (mut disk, mut plain) = (Disk::default(), Disk::default());
            let mut next = 0;
            for (at, length, byte, follows) in writes {
                let at = i64::try_from(if follows { next } else { at }).unwrap();
                let bytes = vec![byte; length];
                prop_assert_eq!(frames.write(FILE, &bytes, at, disk.take()), OK);
                plain.take()(&bytes, at);
                next = usize::try_from(at).unwrap() + length;
            }
            prop_assert_eq!(frames.settle(FILE, disk.take()), OK);
            prop_assert_eq!(disk.content, plain.content);
        }
    }
}
