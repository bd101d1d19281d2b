//! All that the gate runs besides the tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// Formatting, lints, house rules, generated files; stops at the first that fails.
pub fn run(root: &Path) -> anyhow::Result<()> {
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    super::tidy::report(root)?;
    super::links::check(root)?;
    super::generated::unchanged(root)?;
    println!("check: all good");
    Ok(())
}

/// Runs cargo; fails if it does.
pub fn cargo(root: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let shown = arguments.join(" ");
    println!("cargo {shown}");
    let status = Command::new("cargo").args(arguments).current_dir(root).status().context("starting cargo")?;
    ensure!(status.success(), "cargo {shown} failed");
    Ok(())
}
