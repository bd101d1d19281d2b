//! A clock for one process that can be set (libfaketime): the time of day jumps, the monotonic clock goes on, as where
//! somebody sets the machine's clock. For programs that ask the C library for the time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::rooms;

/// How often the library reads the file, in seconds.
const READ_AGAIN_SECONDS: &str = "1";

/// The clock, as the file that the process's library reads.
pub struct Jumps(PathBuf);

impl Jumps {
    /// A clock that is right.
    pub fn make(file: &Path) -> anyhow::Result<Self> {
        let jumps = Self(file.to_owned());
        jumps.set(0)?;
        Ok(jumps)
    }

    /// Sets it so many seconds forward, or back.
    pub fn set(&self, seconds: i64) -> anyhow::Result<()> {
        std::fs::write(&self.0, format!("{seconds:+}\n")).with_context(|| self.0.display().to_string())
    }

    /// What makes a process go by this clock.
    pub fn environment(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let library = rooms::faketime().context("libfaketime")?;
        let pairs = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_CACHE_DURATION", READ_AGAIN_SECONDS.to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
