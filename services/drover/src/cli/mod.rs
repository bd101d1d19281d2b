//! The client: commands that talk to a running platform over its REST interface.
//!
//! One module a noun, thin over [`client`]; what a command prints goes through [`output`].

mod apply;
mod audit;
mod authority;
mod client;
mod command;
pub mod connection;
mod credential;
mod demo;
mod device;
mod device_group;
mod device_type;
mod function;
mod manifest;
mod open;
mod output;
mod policy;
mod query;
mod rule;
mod rule_eval;
mod rule_log;
mod rule_replay;
mod rule_test;
pub mod shadow;
mod snippet;
mod sse;
mod stdin;
mod tail;
mod token;

use std::io::{self, Write};

use clap::Subcommand;

pub use command::NotDone;
pub use output::Format;

/// Commands of the client.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Devices: make them, look at them, print programs for them
    Device(device::Device),
    /// Types of devices: what they send
    Type(device_type::DeviceType),
    /// Groups of devices, by their labels and types
    Group(device_group::DeviceGroup),
    /// Credentials of devices
    Credential(credential::Credential),
    /// Commands: what devices are to do once, and what they answered
    Command(command::Command),
    /// Policies: what devices may do
    Policy(policy::Policy),
    /// Certificate authorities: their certificates register devices
    Authority(authority::Authority),
    /// Rules: SQL over messages and what happens with its rows
    Rule(rule::Rule),
    /// API tokens: who may use the REST interface, the console and these commands
    Token(token::Token),
    /// Audit trail: who changed what and when
    Audit(audit::Audit),
    /// Functions: JavaScript with limits and without I/O
    Function(function::Function),
    /// SQL over messages, their values and the registry's devices
    Query(query::Query),
    /// Shows messages as they come
    Tail(tail::Tail),
    /// Opens the console by a one-time link
    Open(open::Open),
    /// Runs a small simulated fleet with two rules
    Demo(demo::Demo),
}

impl ClientCommand {
    /// Does what was asked; a [`clap::Error`] means wrong usage.
    pub fn run(self) -> anyhow::Result<()> {
        printing(|out| match self {
            Self::Device(device) => device.run(out),
            Self::Type(device_type) => device_type.run(out),
            Self::Group(group) => group.run(out),
            Self::Credential(credential) => credential.run(out),
            Self::Command(command) => command.run(out),
            Self::Policy(policy) => policy.run(out),
            Self::Authority(authority) => authority.run(out),
            Self::Rule(rule) => rule.run(out),
            Self::Token(token) => token.run(out),
            Self::Audit(audit) => audit.run(out),
            Self::Function(function) => function.run(out),
            Self::Query(query) => query.run(out),
            Self::Tail(tail) => tail.run(),
            Self::Open(open) => open.run(out),
            Self::Demo(demo) => demo.run(out),
        })
    }
}

/// Runs what prints. A reader of our output that goes away ends us well.
pub fn printing(print: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match print(&mut out).and_then(|()| Ok(out.flush()?)) {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        other => other,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
