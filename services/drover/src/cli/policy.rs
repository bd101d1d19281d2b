//! `drover policy`.

use std::io::Write;

use clap::Args;
use drover_types::object::PolicySpec;

use super::apply::ObjectCommand;
use super::connection::Connection;
use super::output::Column;

const COLUMNS: [Column; 2] = [("NAME", "/metadata/name"), ("GENERATION", "/metadata/generation")];

/// Policies: what devices may do.
#[derive(Debug, Args)]
pub struct Policy {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: ObjectCommand,
}

impl Policy {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        self.command.run::<PolicySpec>(&self.connection, &COLUMNS, out)
    }
}
