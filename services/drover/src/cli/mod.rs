//! The client: commands that talk to a running platform over its REST interface.
//!
//! One module a noun, thin over [`client`]; what a command prints goes through [`output`].

mod apply;
mod client;
pub mod connection;
mod credential;
mod demo;
mod device;
mod manifest;
mod open;
mod output;
mod policy;
mod rule;
mod rule_eval;
mod snippet;
mod sse;
mod tail;

use std::io::{self, Write};

use clap::Subcommand;

pub use output::Format;

/// Commands of the client.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Devices: make them, look at them, print programs for them
    Device(device::Device),
    /// Credentials of devices
    Credential(credential::Credential),
    /// Policies: what devices may do
    Policy(policy::Policy),
    /// Rules: SQL over messages and what happens with its rows
    Rule(rule::Rule),
    /// Shows messages as they come
    Tail(tail::Tail),
    /// Opens the console by a one-time link
    Open(open::Open),
    /// Runs a small simulated fleet with two rules
    Demo(demo::Demo),
}

impl ClientCommand {
    /// Does what was asked; a [`clap::Error`] means wrong usage. A reader of our output that goes away ends us well.
    pub fn run(self) -> anyhow::Result<()> {
        let mut out = io::stdout();
        let done = match self {
            Self::Device(device) => device.run(&mut out),
            Self::Credential(credential) => credential.run(&mut out),
            Self::Policy(policy) => policy.run(&mut out),
            Self::Rule(rule) => rule.run(&mut out),
            Self::Tail(tail) => tail.run(),
            Self::Open(open) => open.run(&mut out),
            Self::Demo(demo) => demo.run(&mut out),
        };
        match done.and_then(|()| Ok(out.flush()?)) {
            Err(error) if is_broken_pipe(&error) => Ok(()),
            other => other,
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
