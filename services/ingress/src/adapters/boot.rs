//! The boot number: grows by one with each start, so that epochs grow over restarts without any coordination.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const FILE: &str = "boot";

/// Why there is no boot number; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("{path:?} cannot be read or written: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path:?} holds {text:?}, not a number below 4294967295; epochs would go back")]
    Malformed { path: PathBuf, text: String },
}

/// Takes the next boot number of the directory `data`. It is on disk before this returns.
pub fn next(data: &Path) -> Result<u32, BootError> {
    let path = data.join(FILE);
    let io = |source| BootError::Io { path: path.clone(), source };
    fs::create_dir_all(data).map_err(io)?;
    let last = match fs::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or_else(|| BootError::Malformed { path: path.clone(), text })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(io(error)),
    };
    let boot = last + 1;
    replace(data, &path, boot).map_err(io)?;
    Ok(boot)
}

fn parse(text: &str) -> Option<u32> {
    text.trim_end().parse().ok().filter(|last| *last < u32::MAX)
}

/// The old number or the new one is there at any time, never half of one.
fn replace(data: &Path, path: &Path, boot: u32) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    writeln!(file, "{boot}")?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_higher_number_than_all_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("ingress");
        assert_eq!(next(&data).expect("first"), 1);
        assert_eq!(next(&data).expect("second"), 2);
        fs::write(data.join(FILE), "nonsense").expect("written");
        assert!(matches!(next(&data), Err(BootError::Malformed { .. })));
        fs::write(data.join(FILE), "4294967295\n").expect("written");
        assert!(matches!(next(&data), Err(BootError::Malformed { .. })), "the next would be 0");
    }
}
