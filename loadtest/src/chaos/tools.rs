//! Programs of the system that faults need: found, run, and what they say when they fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};

/// Where programs of an administrator lie, also where the path does not name it.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The file of a program; `None`: it is missing.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = SYSTEM_FOLDERS.iter().map(PathBuf::from);
    let mut files = std::env::split_paths(&path).chain(system).map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// Runs a line of words to its end; what it printed.
pub fn run(line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    run_words(&words)
}

/// As [`run`], for words that may have spaces in them.
pub fn run_words(words: &[&str]) -> anyhow::Result<String> {
    let (name, arguments) = words.split_first().context("a program's name")?;
    let file = find(name).with_context(|| format!("{name} is not installed"))?;
    let Output { status, stdout, stderr } = Command::new(file).args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&stderr);
    ensure!(status.success(), "{} ended with {status}: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// A path as a word.
pub fn word(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_fails_or_is_missing_is_told_with_what_it_said() {
        assert_eq!(run("echo a b").expect("it ends well"), "a b\n");
        let failed = run_words(&["sh", "-c", "echo no >&2; exit 3"]).expect_err("it fails").to_string();
        assert!(failed.ends_with("ended with exit status: 3: no"), "{failed}");
        let missing = run("there-is-no-such-program x").expect_err("it is missing").to_string();
        assert_eq!(missing, "there-is-no-such-program is not installed");
    }
}
