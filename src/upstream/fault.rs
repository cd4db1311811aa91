//! What goes wrong within an exchange, whatever protocol it speaks. What that means for a try is said in `error`.

use std::io;

/// Why an exchange came to nothing, or its answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The client did not send its body to the end: its own fault, noted where the body is read.
    #[error("the client broke off its request")]
    Client,
    #[error("{0}")]
    Invalid(&'static str),
    #[error("the connection was closed before the answer was whole")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Of a stream, or of the whole connection.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}
