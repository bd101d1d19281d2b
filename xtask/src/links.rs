//! Documents may name files and functions only if they exist.
//!
//! In ARCHITECTURE.md a code span such as `crates/bus/src/lib.rs` names a file, and `crates/bus/src/lib.rs::append` a
//! function, type or module in it.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

/// Fails on the first name in ARCHITECTURE.md that does not exist, and if it names fewer than a path's worth.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).context("reading ARCHITECTURE.md")?;
    let names = names(&text);
    ensure!(names.len() >= 10, "ARCHITECTURE.md names {} places in the code, a path has at least 10", names.len());
    for (file, item) in names {
        let source = fs::read_to_string(root.join(file)).with_context(|| format!("ARCHITECTURE.md names {file}"))?;
        if let Some(item) = item {
            ensure!(defines(&source, item), "ARCHITECTURE.md names {item} in {file}, which does not define it");
        }
    }
    Ok(())
}

/// Files, with an item or without, in the text's code spans.
fn names(text: &str) -> Vec<(&str, Option<&str>)> {
    let spans = text.split('`').skip(1).step_by(2);
    let places = spans.filter(|span| span.contains('/') && span.contains(".rs") && !span.contains(' '));
    places.map(|span| span.split_once("::").map_or((span, None), |(file, item)| (file, Some(item)))).collect()
}

fn defines(source: &str, item: &str) -> bool {
    let name = item.rsplit("::").next().unwrap_or(item);
    ["fn", "struct", "enum", "trait", "mod", "const", "type"].iter().any(|keyword| {
        source.match_indices(&format!("{keyword} {name}")).any(|(at, found)| {
            let after = source[at + found.len()..].chars().next();
            !after.is_some_and(|c| c.is_alphanumeric() || c == '_')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_does_not_exist_is_found_out() {
        let places = names("see `a/b.rs::run` and `c/d.rs`, not `plain` or `cargo run x/y.rs`");
        assert_eq!(places, [("a/b.rs", Some("run")), ("c/d.rs", None)]);
        assert!(defines("pub async fn run(", "run"));
        assert!(!defines("pub fn runner(", "run"));
        assert!(defines("impl X { fn poll() }", "X::poll"));
    }

    #[test]
    fn architecture_names_only_what_exists() {
        check(&crate::root()).expect("every name exists");
    }
}
