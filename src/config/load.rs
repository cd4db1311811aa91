//! Reads the file into a [`Config`], resolves `${env:}` and `${file:}`, and reports every fault at once with its line.

use std::path::Path;

use super::Config;

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// One fault: where it is and what to do.
#[derive(Clone, Debug)]
pub struct Fault {
    pub file: String,
    /// 1-based; 0 when the fault is not in a line.
    pub line: usize,
    pub message: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl Config {
    /// The configuration in `path`.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let fault = |message: String| Faults(vec![Fault { file: file.clone(), line: 0, message }]);
        let text = std::fs::read_to_string(path).map_err(|e| fault(e.to_string()))?;
        toml::from_str(&text).map_err(|e| fault(e.to_string()))
    }
}
