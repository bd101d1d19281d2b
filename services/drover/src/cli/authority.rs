//! `drover authority`.

use std::io::Write;

use clap::Args;
use drover_types::object::CertificateAuthoritySpec;

use super::apply::ObjectCommand;
use super::connection::Connection;
use super::output::Column;

const COLUMNS: [Column; 4] = [
    ("NAME", "/metadata/name"),
    ("TYPE", "/spec/template/type"),
    ("ENABLED", "/spec/template/enabled"),
    ("GENERATION", "/metadata/generation"),
];

/// Certificate authorities: a device that connects with a certificate of one is registered by it.
#[derive(Debug, Args)]
pub struct Authority {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: ObjectCommand,
}

impl Authority {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        self.command.run::<CertificateAuthoritySpec>(&self.connection, &COLUMNS, out)
    }
}
