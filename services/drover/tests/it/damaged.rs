//! A log that was damaged or torn while nobody ran: what `up` makes of it, and what it says.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::platform::Platform;
use crate::process::{Up, refused_on};

const MESSAGES: [&str; 3] = [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#];

/// A data directory of a platform that has ended, and the file in it that holds [`MESSAGES`], each in a frame of its own.
fn with_messages() -> (TempDir, PathBuf) {
    let platform = Platform::start();
    let created = platform.json(&["device", "create", "d"]);
    let bearer = format!("Bearer {}", created["token"].as_str().expect("a token"));
    let url = format!("http://127.0.0.1:{}/v1/topics/a?qos=1", 8080 + platform.up.offset);
    for message in MESSAGES {
        let sent = ureq::post(url.as_str()).header("authorization", bearer.as_str()).send(message);
        assert_eq!(sent.expect("an answer").status(), 200);
    }
    let Platform { up, data } = platform;
    assert!(up.stop().success());
    let mut topics = std::fs::read_dir(data.path().join("bus/topics")).expect("lists").flatten();
    let is_telemetry = |name: &str| name.starts_with("drover.telemetry.");
    let telemetry = topics.find(|entry| entry.file_name().to_str().is_some_and(is_telemetry)).expect("it is there");
    let file = telemetry.path().join("0000000000.0.log");
    (data, file)
}

#[test]
fn a_log_that_is_damaged_before_its_end_is_refused_by_file_and_place_and_left_alone() {
    let (data, file) = with_messages();
    let sound = std::fs::read(&file).expect("there");
    let message = MESSAGES[1].as_bytes();
    let place = sound.windows(message.len()).position(|window| window == message).expect("the message");
    let mut damaged = sound.clone();
    damaged[place] ^= 1;
    std::fs::write(&file, &damaged).expect("written");
    let begin = format!("drover: {} is damaged at byte ", file.display());
    let end = ": checksum mismatch, with sound records behind it; restore it from a backup, or move it away and \
               choose another directory with --data DIR";
    for _ in 0..2 {
        let said = refused_on(data.path());
        let at = said.strip_prefix(&begin).and_then(|rest| rest.strip_suffix(end)?.parse::<usize>().ok());
        assert!(at.is_some_and(|at| at > 0 && at < place), "the frame of byte {place}: {said}");
        assert!(std::fs::read(&file).expect("there") == damaged, "nothing was changed");
    }
    std::fs::write(&file, &sound).expect("written");
    assert!(Up::on(data.path()).stop().success(), "nothing else was harmed");
}

#[test]
fn a_torn_end_of_the_log_is_cut_at_the_start_with_a_warning() {
    let (data, file) = with_messages();
    let sound = std::fs::read(&file).expect("there");
    // The beginning of a frame, as a write that was never completed leaves it.
    let torn = [&sound[..], &sound[..40]].concat();
    std::fs::write(&file, torn).expect("written");
    let (status, log) = Up::on(data.path()).stop_with_log();
    assert!(status.success(), "{log}");
    let warning = log.lines().find(|line| line.contains("end of a file cut: it was never completed")).expect(&log);
    let path = format!("file={}", file.display());
    let at = format!("at={} bytes=40", sound.len());
    for part in ["WARN", &path, &at, "reason=\"incomplete frame\""] {
        assert!(warning.contains(part), "{part} in {warning}");
    }
    assert!(std::fs::read(&file).expect("there") == sound, "what was acknowledged stays");
    let (_, log) = Up::on(data.path()).stop_with_log();
    assert!(!log.contains("never completed"), "it is told once: {log}");
}
