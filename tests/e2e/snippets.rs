//! Programs of `drover device snippet` run as they are printed, and what they publish is kept. `device_http` runs curl's.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use drover_tests::{Platform, lines_of, node, python, tool};

/// A language with what runs its programs, which come by standard input; and how many readings one publishes at least.
type Runner = (&'static str, Command, usize);

/// What runs programs here.
fn runners() -> Vec<Runner> {
    let command = |program: PathBuf, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        command
    };
    let python = python().map(|python| ("python", command(python, &["-"]), 10));
    let node = node("mqtt").map(|node| {
        let mut command = command(node.program, &["-"]);
        command.env("NODE_PATH", node.modules);
        ("node", command, 10)
    });
    let mosquitto = tool("mosquitto_pub").map(|_| ("mosquitto", command("sh".into(), &["-s"]), 1));
    [python, node, mosquitto].into_iter().flatten().collect()
}

/// How many temperatures are kept of a device.
fn kept(platform: &Platform, device: &str) -> anyhow::Result<usize> {
    let path = format!("/devices/{device}/telemetry?field=temperature&from=-1h&limit=100");
    let answer = platform.rest("GET", &path, None)?;
    Ok(answer["items"].as_array().context("items")?.len())
}

#[test]
fn the_programs_for_a_device_run_as_they_are_printed() -> anyhow::Result<()> {
    let mut platform = Platform::start()?;
    let mut running = Vec::new();
    for (language, mut command, readings) in runners() {
        let device = format!("by-{language}");
        platform.cli(&["device", "create", &device])?;
        let program = platform.cli(&["device", "snippet", &device, "--lang", language])?;
        // Most take a second a reading: side by side.
        running.push((device, readings, std::thread::spawn(move || lines_of(&mut command, program.as_bytes()))));
    }
    for (device, readings, run) in running {
        let printed = run.join().map_err(|_| anyhow::anyhow!("the run of {device} panicked"))??;
        assert!(readings == 1 || printed.len() >= readings, "{device}: {printed:?}");
        platform.until("in storage", |platform| Ok(kept(platform, &device)? >= readings))?;
    }
    Ok(())
}
