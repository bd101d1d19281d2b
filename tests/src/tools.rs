//! Outside programs: looked for, run, and named in one line where they are missing; and the gateway, asked by HTTP.

use std::num::ParseIntError;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

/// How a test says that it could not run; what follows names the missing part.
const NOT_RUN: &str = "NOT RUN:";
/// How long a request may take; a dependency that is away is waited for by the service asked.
const REQUEST: Duration = Duration::from_secs(30);
/// Where root's programs are; they may not be in the path of whoever runs tests.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The program, or `None` after saying what is not run without it.
pub fn tool(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        println!("{NOT_RUN} {name} is missing");
    }
    found
}

/// Where a program is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Where what takes long to make is kept between runs.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("drover"))
}

/// A Python that has paho-mqtt, or `None` after saying so.
pub fn python() -> Option<PathBuf> {
    python_with(&["paho.mqtt.client"])
}

/// A Python that has these modules, or `None` after saying so.
pub fn python_with(modules: &[&str]) -> Option<PathBuf> {
    let named = std::env::var_os("DROVER_TEST_PYTHON").map(PathBuf::from);
    let python = named.unwrap_or_else(|| "python3".into());
    let imports = format!("import {}", modules.join(", "));
    let has_them = Command::new(&python).args(["-c", &imports]).stderr(Stdio::null()).status();
    if has_them.is_ok_and(|status| status.success()) {
        return Some(python);
    }
    println!("{NOT_RUN} python3 with {} is missing", modules.join(" and "));
    None
}

/// Node.js, and where its packages are: for `NODE_PATH`.
pub struct Node {
    pub program: PathBuf,
    pub modules: PathBuf,
}

/// Node.js with a package that `tests/run --install` has installed, or `None` after saying so.
pub fn node(package: &str) -> Option<Node> {
    let program = tool("node")?;
    let named = std::env::var_os("DROVER_TEST_NODE").map(PathBuf::from);
    let modules = named.or_else(|| Some(cache().ok()?.join("node/node_modules"))).unwrap_or_default();
    if modules.join(package).is_dir() {
        return Some(Node { program, modules });
    }
    println!("{NOT_RUN} the npm package {package} is missing");
    None
}

/// Chromium, or `None` after saying so.
pub fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| find(name)).or_else(|| {
        println!("{NOT_RUN} chromium is missing");
        None
    })
}

/// A file of `tests/e2e`.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e").join(name)
}

/// What the environment says for a number of a test, in place of `default`.
pub fn number<N: FromStr<Err = ParseIntError>>(name: &str, default: N) -> anyhow::Result<N> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} = {text}")),
        Err(_) => Ok(default),
    }
}

/// Asks the gateway at a port with the token of a file: method, path under `/api/v1`, body if any. The answer's JSON.
pub(crate) fn rest(
    port: u16,
    token_file: &Path,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Value> {
    let token = std::fs::read_to_string(token_file)?;
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://127.0.0.1:{port}/api/v1{path}"))
        .header("authorization", format!("Bearer {}", token.trim()))
        .header("content-type", "application/json")
        .body(body.map(ToString::to_string).unwrap_or_default())?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(REQUEST))
        .build()
        .into();
    let answer = agent.run(request)?;
    let status = answer.status();
    let text = answer.into_body().read_to_string()?;
    ensure!(status.is_success(), "{method} {path}: {status}: {text}");
    Ok(serde_json::from_str(&text)?)
}

/// Output lines of a program that must succeed; `input` is its standard input.
pub fn lines_of(command: &mut Command, input: &[u8]) -> anyhow::Result<Vec<String>> {
    let shown = format!("{command:?}");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    let input = input.to_vec();
    // A program that ends without reading all of its input says so by its exit status.
    let feeder = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &input)));
    let output = child.wait_with_output()?;
    feeder.join().expect("the feeder does not panic");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} ended with {}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}
