//! What is wrong with a configuration: all of it at once, each fault with its place and what to do.

/// All that is wrong with a configuration, in the order of the file.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// One fault: where it is and what to do. Never holds the text behind a `${env:}` or `${file:}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub file: String,
    /// 1-based; 0 when the fault is not in a line.
    pub line: usize,
    /// 1-based, in characters; 0 when the fault is not in a line.
    pub column: usize,
    pub message: String,
}

impl Fault {
    /// A fault of the whole file, bounded and free of control characters.
    pub fn new(file: &str, message: &str) -> Self {
        Self { file: file.to_owned(), line: 0, column: 0, message: printable(message) }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}:{}: {}", self.file, self.column, self.message),
        }
    }
}

/// Something that works, but perhaps not as meant. [`super::Config::warnings`] lists them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// The key it is about: `route.checkout.stand_in`.
    pub key: String,
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`: {}", self.key, self.message)
    }
}

/// A message may quote the file: no control character reaches a terminal, no value fills a screen. Further lines
/// (where an expression is wrong) are indented.
pub(crate) fn printable(message: &str) -> String {
    let mut text = String::new();
    for (at, char) in message.trim_end().chars().enumerate() {
        if at == LONGEST_MESSAGE {
            text.push('…');
            break;
        }
        match char {
            '\n' => text.push_str("\n    "),
            _ if char.is_control() || BIDI.contains(&char) => text.extend(char.escape_unicode()),
            _ => text.push(char),
        }
    }
    text
}

const LONGEST_MESSAGE: usize = 1000;

/// Characters that turn the direction of text, so that a line reads otherwise than it is.
const BIDI: [char; 9] = [
    '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}',
    '\u{2069}',
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_steer_a_terminal_or_fill_it() {
        let fault = Fault::new("a.toml", "bad \u{1b}[31m and \u{202e} here\nand there");
        assert_eq!(fault.to_string(), "a.toml: bad \\u{1b}[31m and \\u{202e} here\n    and there");
        assert!(Fault::new("a.toml", &"x".repeat(10_000)).message.len() < 1100);
    }
}
