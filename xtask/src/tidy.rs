//! House rules that the compiler does not know: dependency direction, file headers, a domain free of I/O, reads that know
//! their partition.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::cargo;

/// What may depend on services.
const USES_SERVICES: [&str; 3] = ["drover", "drover-tests", "xtask"];
const SERVICES: [&str; 7] = [
    "drover-ingress",
    "drover-registry",
    "drover-shadow",
    "drover-rules",
    "drover-storage",
    "drover-gateway",
    "drover-operator",
];
/// Dependencies (development ones aside) that one place only may name.
const RESERVED: [(&str, &[&str]); 5] = [
    ("rdkafka", &["drover-bus-kafka", "drover-rdkafka-calls", "drover-tests"]),
    ("scylla", &["drover-scylla-kit"]),
    ("kube", &["drover-operator"]),
    ("rquickjs", &["drover-functions"]),
    ("drover-sim", &["drover-tests"]),
];
/// Crates that know none of ours, or only those listed.
const INNER: [(&str, &[&str]); 6] = [
    ("drover-types", &[]),
    ("drover-mqtt", &["drover-types"]),
    ("drover-snippets", &["drover-types"]),
    ("drover-rule-sql", &["drover-types"]),
    ("drover-functions", &["drover-types"]),
    ("drover-bus", &["drover-types"]),
];
/// What a `domain/` folder never names.
const OUTSIDE: [&str; 11] = [
    "tonic::",
    "tokio::net",
    "std::net::Tcp",
    "std::net::Udp",
    "SystemTime",
    "Instant::now",
    "getrandom::",
    "std::env",
    "std::fs",
    "crate::server",
    "crate::adapters",
];
/// What no statement of a database says: it reads all partitions to find some rows.
const FILTERING: &str = "FILTERING";
/// The file that names it to forbid it.
const FORBIDS: &str = "xtask/src/tidy.rs";
/// How many of the longest files and functions the report shows.
const SHOWN: usize = 5;

/// Prints every broken rule and the longest files and functions; fails if a rule is broken.
pub fn report(root: &Path) -> anyhow::Result<()> {
    let sources = sources(root)?;
    let mut broken = dependencies(&packages(root)?);
    for (path, text) in &sources {
        broken.extend(file_rules(path, text));
    }
    for (lines, place) in longest(&sources) {
        println!("tidy: {lines:5} lines  {place}");
    }
    for rule in &broken {
        println!("tidy: BROKEN {rule}");
    }
    ensure!(broken.is_empty(), "{} house rules are broken", broken.len());
    println!("tidy: {} files keep the house rules", sources.len());
    Ok(())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

fn packages(root: &Path) -> anyhow::Result<Vec<Package>> {
    let arguments = ["metadata", "--no-deps", "--format-version", "1"];
    let output = cargo::command(root).args(arguments).output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice::<Metadata>(&output.stdout)?.packages)
}

/// Arrows between crates that point outwards.
fn dependencies(packages: &[Package]) -> Vec<String> {
    let mut broken = Vec::new();
    for package in packages {
        let of = |kind: Option<&str>| -> Vec<&str> {
            let chosen = package.dependencies.iter().filter(move |d| d.kind.as_deref() == kind);
            chosen.map(|d| d.name.as_str()).collect()
        };
        for dependency in of(None) {
            let name = package.name.as_str();
            let allowed = INNER.iter().find(|(inner, _)| *inner == name).map(|(_, allowed)| *allowed);
            let ours = dependency.starts_with("drover");
            if ours && allowed.is_some_and(|allowed| !allowed.contains(&dependency)) {
                broken.push(format!("{name} depends on {dependency}"));
            }
            let between = SERVICES.contains(&name) && SERVICES.contains(&dependency);
            if between {
                broken.push(format!("service {name} depends on service {dependency}"));
            }
            let reserved = RESERVED.iter().find(|(what, _)| *what == dependency);
            if reserved.is_some_and(|(_, users)| !users.contains(&name)) {
                broken.push(format!("{name} names {dependency}, which is not its to name"));
            }
        }
        let uses_services = of(None).iter().any(|d| SERVICES.contains(d));
        let name = package.name.as_str();
        if uses_services && !USES_SERVICES.contains(&name) && !SERVICES.contains(&name) {
            broken.push(format!("{name} depends on services"));
        }
    }
    broken
}

/// Rules of one file.
fn file_rules(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if !text.starts_with("//!") {
        broken.push(format!("{path} has no `//!` header"));
    }
    if path != FORBIDS {
        for (i, _) in text.lines().enumerate().filter(|(_, line)| is_code(line) && filters(line)) {
            broken.push(format!("{path}:{} has a statement with ALLOW FILTERING", i + 1));
        }
    }
    // Tests may ask for the time: it is virtual there.
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    if path.contains("/domain/") && !is_test {
        for (i, line) in code.lines().enumerate().filter(|(_, line)| is_code(line)) {
            if let Some(outside) = OUTSIDE.iter().find(|outside| line.contains(**outside)) {
                broken.push(format!("{path}:{} names {outside} in the domain", i + 1));
            }
        }
    }
    broken
}

fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// Whether a line has the words, or the second of them where the first is at the end of the line before.
fn filters(line: &str) -> bool {
    line.contains(FILTERING) || line.to_uppercase().contains("ALLOW FILTERING")
}

/// Every Rust source of the workspace: path from the root, and text.
fn sources(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> =
        ["crates", "services", "examples", "loadtest", "tests", "xtask"].iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root)?.display().to_string();
                found.insert(name, fs::read_to_string(&path)?);
            }
        }
    }
    Ok(found)
}

/// The longest files and functions outside of tests, longest first.
fn longest(sources: &BTreeMap<String, String>) -> Vec<(usize, String)> {
    let shipped = sources.iter().filter(|(path, _)| !path.contains("/tests/"));
    let code = shipped.map(|(path, text)| (path, text.split("#[cfg(test)]").next().unwrap_or(text)));
    let mut files = Vec::new();
    let mut functions = Vec::new();
    for (path, text) in code {
        files.push((text.lines().count(), path.clone()));
        functions.extend(function_lengths(text).map(|(lines, name)| (lines, format!("{path}::{name}"))));
    }
    let top = |mut all: Vec<(usize, String)>| {
        all.sort_by(|a, b| b.cmp(a));
        all.truncate(SHOWN);
        all
    };
    top(files).into_iter().chain(top(functions)).collect()
}

/// Length and name of each function, told by rustfmt's indentation.
fn function_lengths(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let lines: Vec<&str> = text.lines().collect();
    let starts: Vec<usize> = (0..lines.len()).filter(|&i| is_function(lines[i])).collect();
    starts.into_iter().filter_map(move |start| {
        let signature = lines[start..].iter().find(|line| line.ends_with(['{', ';', '}']))?;
        if signature.ends_with(';') {
            return None;
        }
        let indent = &lines[start][..lines[start].len() - lines[start].trim_start().len()];
        let end = lines[start..].iter().position(|line| *line == format!("{indent}}}"))?;
        let name = lines[start].split("fn ").nth(1)?.split(['(', '<']).next()?;
        Some((end + 1, name.to_owned()))
    })
}

fn is_function(line: &str) -> bool {
    let line = line.trim_start();
    let heads = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "];
    heads.iter().any(|head| line.starts_with(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_rules_are_kept() {
        report(&crate::root()).expect("no broken rule");
    }

    #[test]
    fn broken_rules_are_found_out() {
        let dependency = |name: &str| Dependency { name: name.into(), kind: None };
        let packages = [
            Package { name: "drover-types".into(), dependencies: vec![dependency("drover-bus")] },
            Package {
                name: "drover-rules".into(),
                dependencies: vec![dependency("drover-ingress"), dependency("kube")],
            },
            Package { name: "loadtest".into(), dependencies: SERVICES.iter().map(|s| dependency(s)).collect() },
            Package { name: "drover-host".into(), dependencies: vec![dependency("drover-registry")] },
        ];
        let broken = dependencies(&packages);
        assert_eq!(broken.len(), 5, "{broken:?}");
        assert_eq!(file_rules("a/b.rs", "fn x() {}").len(), 1);
        assert_eq!(file_rules("a/domain/b.rs", "//! x\nuse std::time::SystemTime;\n").len(), 1);
        assert_eq!(file_rules("a/domain/b.rs", "//! x\nuse crate::adapters::Store;\n").len(), 1);
        assert_eq!(file_rules("a/domain/b.rs", "//! x\n#[cfg(test)]\nuse std::env;\n"), Vec::<String>::new());
        for statement in
            ["\"SELECT a FROM b ALLOW FILTERING\"", "\"select a from b allow filtering\"", "    FILTERING\""]
        {
            assert_eq!(file_rules("a/b.rs", &format!("//! x\nlet cql = {statement};\n")).len(), 1, "{statement}");
        }
        assert_eq!(file_rules("a/b.rs", "//! x\n// no ALLOW FILTERING, no filtering\n"), Vec::<String>::new());
    }
}
