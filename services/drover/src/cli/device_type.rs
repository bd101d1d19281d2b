//! `drover type`.

use std::io::Write;

use clap::Args;
use drover_types::object::DeviceTypeSpec;

use super::apply::ObjectCommand;
use super::connection::Connection;
use super::output::Column;

const COLUMNS: [Column; 3] =
    [("NAME", "/metadata/name"), ("GENERATION", "/metadata/generation"), ("DESCRIPTION", "/spec/description")];

/// Types of devices: what they send.
#[derive(Debug, Args)]
pub struct DeviceType {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: ObjectCommand,
}

impl DeviceType {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        self.command.run::<DeviceTypeSpec>(&self.connection, &COLUMNS, out)
    }
}
