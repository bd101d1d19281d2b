//! Programs other people wrote, run to their end.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Seconds after which `timeout` ends a program that hangs; then the test fails.
const PATIENCE_SECONDS: &str = "120";

/// Runs `program` with `input` on its standard input, off the runtime.
pub async fn run(program: &str, arguments: Vec<String>, input: String) -> Output {
    let mut command = Command::new("timeout");
    command.arg(PATIENCE_SECONDS).arg(program).args(arguments);
    let run = move || {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("timeout is installed");
        let mut stdin = child.stdin.take().expect("piped");
        // A program that ends early breaks the pipe; its exit code tells why.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        child.wait_with_output().expect("the program ran")
    };
    tokio::task::spawn_blocking(run).await.expect("no panic")
}

/// Arguments as [`run`] takes them.
pub fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}
