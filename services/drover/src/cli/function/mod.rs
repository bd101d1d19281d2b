//! `drover function`.

mod eval;
mod local;
mod test;

use std::io::Write;

use clap::{Args, Subcommand};
use drover_types::object::FunctionSpec;

use super::apply::ObjectCommand;
use super::connection::Connection;
use super::output::Column;
pub use local::LocalFunctions;
use test::FunctionTest;

const COLUMNS: [Column; 3] =
    [("NAME", "/metadata/name"), ("VERSION", "/metadata/generation"), ("ROUTINE", "/spec/routine")];

/// Functions: JavaScript with limits and without I/O.
#[derive(Debug, Args)]
pub struct Function {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: FunctionCommand,
}

#[derive(Debug, Subcommand)]
enum FunctionCommand {
    #[command(flatten)]
    Object(ObjectCommand),
    /// Tries the examples of a file's functions, or of one that the platform has; calls them here, not there
    Test(FunctionTest),
    /// Calls routines of payload codecs without a platform: a JSON line in, a JSON line out
    Eval {
        /// Reads lines `{"codec_path", "routine", "input"}`
        #[arg(long, required = true)]
        stdin: bool,
        /// Calls in this very process, which a script may then end
        #[arg(long, hide = true)]
        in_process: bool,
    },
}

impl Function {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.command {
            FunctionCommand::Object(command) => command.run::<FunctionSpec>(&self.connection, &COLUMNS, out),
            FunctionCommand::Test(test) => test.run(&self.connection, out),
            FunctionCommand::Eval { stdin: _, in_process } => eval::run(in_process, out),
        }
    }
}
