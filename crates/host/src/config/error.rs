//! Why a configuration is refused: each says where, which key, and what would be right.

use std::io;
use std::path::PathBuf;

use super::UnknownKeys;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{}: line {line}: {reason}", path.display())]
    Malformed { path: PathBuf, line: usize, reason: String },
    #[error("{0}")]
    Unknown(UnknownKeys),
    #[error("{origin}: {key}: {reason}")]
    Value { origin: String, key: String, reason: String },
}
