//! The client: commands that talk to a running platform over its REST interface.

use clap::Subcommand;

/// Commands of the client.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {}

impl ClientCommand {
    /// Does what was asked; a [`clap::Error`] means wrong usage.
    pub fn run(self) -> anyhow::Result<()> {
        match self {}
    }
}
