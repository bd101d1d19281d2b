//! A session that outlives `drover up`, stopped or killed: a paho client comes back and has everything that was
//! acknowledged meanwhile.

use std::process::Command;

use anyhow::Context;
use drover_tests::{Platform, lines_of, python, script};
use serde_json::Value;

/// Messages of one step.
const MESSAGES: u64 = 300;

#[test]
fn a_persistent_session_has_every_acknowledged_message_after_the_platform_was_killed_and_restarted()
-> anyhow::Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let mut platform = Platform::start()?;
    let port = platform.port(1883).to_string();
    let run = |arguments: &[String]| {
        let mut command = Command::new(&python);
        command.arg(script("persistent_session.py")).args(["127.0.0.1", &port]).args(arguments);
        lines_of(&mut command, b"")
    };
    let publish = |from: u64, to: u64| run(&["publish".to_owned(), from.to_string(), to.to_string()]);
    let receive = |from: u64, to: u64| {
        let lines = run(&["receive".to_owned(), from.to_string(), to.to_string()])?;
        let seen: Value = serde_json::from_str(lines.first().context("what was received")?)?;
        assert_eq!(seen["present"], true);
        let expected: Vec<u64> = (from..to).collect();
        assert_eq!(seen["numbers"], Value::from(expected), "each, in order");
        anyhow::Ok(())
    };
    run(&["subscribe".to_owned()])?;
    publish(0, MESSAGES)?;
    platform.kill()?;
    platform.resume()?;
    publish(MESSAGES, 2 * MESSAGES)?;
    receive(0, 2 * MESSAGES)?;

    publish(2 * MESSAGES, 3 * MESSAGES)?;
    anyhow::ensure!(platform.stop()?.success());
    platform.resume()?;
    publish(3 * MESSAGES, 3 * MESSAGES + 1)?;
    receive(2 * MESSAGES, 3 * MESSAGES + 1)
}
