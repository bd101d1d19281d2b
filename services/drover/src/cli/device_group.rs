//! `drover group`.

use std::io::Write;

use clap::{Args, Subcommand};
use drover_types::object::DeviceGroupSpec;

use super::apply::ObjectCommand;
use super::connection::Connection;
use super::device::List;
use super::output::Column;

const COLUMNS: [Column; 4] = [
    ("NAME", "/metadata/name"),
    ("WITHIN", "/spec/parent"),
    ("TYPES", "/spec/types"),
    ("DESCRIPTION", "/spec/description"),
];

/// Groups of devices, by their labels and types.
#[derive(Debug, Args)]
pub struct DeviceGroup {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Debug, Subcommand)]
enum GroupCommand {
    #[command(flatten)]
    Object(ObjectCommand),
    /// Shows the first 100 devices of a group, or all
    Devices {
        name: String,
        #[command(flatten)]
        list: List,
    },
}

impl DeviceGroup {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let connection = &self.connection;
        match self.command {
            GroupCommand::Object(command) => command.run::<DeviceGroupSpec>(connection, &COLUMNS, out),
            GroupCommand::Devices { name, list } => {
                list.run(&connection.open()?, &["groups", &name, "devices"], connection.output, out)
            }
        }
    }
}
