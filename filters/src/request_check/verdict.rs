//! What the watch of a connection's raw bytes tells the check.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

/// What a connection's raw bytes showed that cannot be seen in the parsed request: shared by all requests of one
/// connection. Once set it stays: every later request of the connection is refused.
#[derive(Clone, Debug, Default)]
pub struct FramingVerdict(Arc<AtomicU8>);

/// See [`FramingVerdict`]. Later ones are worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FramingFault {
    /// The observer no longer knows where it is: only a request with a `Transfer-Encoding` could hide something.
    Lost = 1,
    /// A `#` in the request target, which the URI parser drops silently.
    Fragment = 2,
    /// `Content-Length` and `Transfer-Encoding` in one head.
    LengthAndEncoding = 3,
}

impl FramingVerdict {
    pub fn report(&self, fault: FramingFault) {
        self.0.fetch_max(fault as u8, Ordering::Relaxed);
    }

    pub fn fault(&self) -> Option<FramingFault> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(FramingFault::Lost),
            2 => Some(FramingFault::Fragment),
            _ => Some(FramingFault::LengthAndEncoding),
        }
    }
}
