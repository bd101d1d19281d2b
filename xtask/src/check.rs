//! All that the gate runs besides the tests.

use std::path::Path;

use super::cargo;

/// Formatting, lints, house rules, generated files; stops at the first that fails.
pub fn run(root: &Path) -> anyhow::Result<()> {
    cargo::run(root, &["fmt", "--all", "--check"])?;
    cargo::run(root, &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    super::tidy::report(root)?;
    super::links::check(root)?;
    super::generated::unchanged(root)?;
    println!("check: all good");
    Ok(())
}
