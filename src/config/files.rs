//! Reads the files a configuration is made of: bounded, and with words that say which file it was.

use std::{io::Read, path::Path};

/// A text file of at most 1 MiB, without one newline at its end: a secret, a template.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let bytes = read(path, LARGEST_TEXT)?;
    let mut text =
        String::from_utf8(bytes).map_err(|_| format!("{} is not UTF-8 text", path.display()))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// A whole file of at most `most` bytes.
pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    if bytes.len() as u64 > most {
        let most = super::units::write_size(most);
        return Err(format!("{} is larger than {most}", path.display()));
    }
    Ok(bytes)
}

const LARGEST_TEXT: u64 = 1 << 20;
