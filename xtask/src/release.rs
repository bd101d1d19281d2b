//! The release executables that are measured and tried.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::Value;

use super::cargo;

/// Which are taken.
#[derive(Args)]
pub struct Binaries {
    /// Where built executables lie; without it a release build is made.
    #[arg(long, global = true)]
    binaries: Option<PathBuf>,
}

impl Binaries {
    /// Where they are, built now if nobody has said where.
    pub fn find(&self, root: &Path) -> anyhow::Result<PathBuf> {
        self.binaries.clone().map_or_else(|| build(root), Ok)
    }
}

/// Builds them; where they are. The platform by itself, as its users build it: cargo gives packages that are built together
/// the features of all of them, and would build everything once more.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    cargo::run(root, &["build", "--release"])?;
    cargo::run(root, &["build", "--release", "--package", "drover-load"])?;
    Ok(target(root)?.join("release"))
}

/// The target directory.
fn target(root: &Path) -> anyhow::Result<PathBuf> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = cargo::command(root).args(arguments).output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names the target directory")?.into())
}
