//! The server's jars, resolved by Maven once into a cache that all checkouts share.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

/// The version that is tested.
const VERSION: &str = "5.0.6";
const COPY_JARS: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

/// The directory of the jars. `None`, and one line that says why, if a tool is missing.
pub fn fetch() -> Option<PathBuf> {
    let cache = cache().join(format!("cassandra-{VERSION}"));
    let (jars, complete) = (cache.join("lib"), cache.join(".complete"));
    for tool in ["java", "setpriv"] {
        if !is_installed(tool) {
            return not_run(&format!("{tool} is not installed"));
        }
    }
    fs::create_dir_all(&cache).expect("the cache is writable");
    let lock = File::create(cache.join(".lock")).expect("the cache is writable");
    lock.lock().expect("locks work here");
    if complete.exists() {
        return Some(jars);
    }
    if !is_installed("mvn") {
        return not_run("mvn is not installed");
    }
    let pom = cache.join("pom.xml");
    fs::write(&pom, project()).expect("the cache is writable");
    let output = Command::new("mvn")
        .args(["-q", "-B", COPY_JARS, "-DincludeScope=runtime", "-f"])
        .arg(&pom)
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .output()
        .expect("mvn starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "maven cannot resolve cassandra {VERSION}:\n{said}");
    fs::write(complete, "").expect("the cache is writable");
    Some(jars)
}

fn not_run<T>(why: &str) -> Option<T> {
    println!("NOT RUN: cassandra: {why}");
    None
}

fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(tool).is_file())
}

/// `$XDG_CACHE_HOME/drover/backends`, outside of every checkout.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || variable("HOME").map_or_else(std::env::temp_dir, |home| home.join(".cache"));
    variable("XDG_CACHE_HOME").unwrap_or_else(home).join("drover/backends")
}

fn project() -> String {
    format!(
        r#"<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>dev.drover</groupId><artifactId>cassandra</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId>
<version>{VERSION}</version></dependency></dependencies></project>
"#
    )
}
