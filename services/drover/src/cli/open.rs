//! `drover open`: a one-time link into the console.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::connection::Connection;

/// What opens a link on a desktop; the first that is there and starts.
const OPENERS: [&str; 2] = ["xdg-open", "open"];

/// Opens the console in the browser by a link that works once.
#[derive(Debug, Args)]
pub struct Open {
    #[command(flatten)]
    connection: Connection,
    /// Only print the link
    #[arg(long)]
    print: bool,
}

impl Open {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let to = &self.connection;
        let link = to.open()?.post(&["console-links"], &json!({}))?;
        let path = link["path"].as_str().context("the answer has no link")?;
        let url = format!("{}{path}", to.server.trim_end_matches('/'));
        let shown = json!({"url": url, "durationS": link["durationS"]});
        to.output.object(out, &shown, |out| writeln!(out, "{url}"))?;
        let has_desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
        if !self.print
            && (has_desktop || cfg!(target_os = "macos"))
            && !OPENERS.iter().any(|opener| opens(opener, &url))
        {
            eprintln!("no browser was found: open the link yourself; it works once, within two minutes");
        }
        Ok(())
    }
}

fn opens(opener: &str, url: &str) -> bool {
    let mut command = Command::new(opener);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
