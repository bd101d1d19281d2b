//! A platform on a directory of its own, and commands that talk to it.

use std::process::Command;

use serde_json::Value;

use crate::process::{Up, drover, refused};

/// A platform on a directory of its own, and commands that talk to it.
pub struct Platform {
    pub up: Up,
    pub data: tempfile::TempDir,
}

impl Platform {
    pub fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        Self { up: Up::on(data.path()), data }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = drover(arguments);
        command.env("DROVER_SERVER", format!("http://127.0.0.1:{}", 8080 + self.up.offset));
        command.arg("--token-file").arg(self.data.path().join("admin.token"));
        command
    }

    /// What a command that works prints.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the executable runs");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(&[arguments, &["-o", "json"]].concat())).expect("JSON")
    }

    /// The one line of a command that fails.
    pub fn refuses(&self, arguments: &[&str]) -> String {
        let said = refused(&mut self.command(arguments), 1);
        assert_eq!(said.lines().count(), 1, "{said}");
        said.trim_end().to_owned()
    }

    /// Writes a file beside the data.
    pub fn file(&self, name: &str, text: &str) -> String {
        let file = self.data.path().join(name);
        std::fs::write(&file, text).expect("written");
        file.display().to_string()
    }
}
