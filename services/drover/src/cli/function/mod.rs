//! `drover function`.

mod worker;

use std::io::{self, BufRead, Write};

use clap::{Args, Subcommand};
use drover_functions::line::{Lines, refused};

use super::stdin;
use worker::Worker;

/// Functions: JavaScript with limits and without I/O.
#[derive(Debug, Args)]
pub struct Function {
    #[command(subcommand)]
    command: FunctionCommand,
}

#[derive(Debug, Subcommand)]
enum FunctionCommand {
    /// Calls routines of payload codecs without a platform: a JSON line in, a JSON line out
    Eval {
        /// Reads lines `{"codec_path", "routine", "input"}`
        #[arg(long, required = true)]
        stdin: bool,
        /// Calls in this very process, which a script may then stop for good
        #[arg(long, hide = true)]
        in_process: bool,
    },
}

impl Function {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let FunctionCommand::Eval { stdin: _, in_process } = self.command;
        let questions = &mut io::stdin().lock();
        if in_process {
            worker::end_with_parent();
            let mut lines = Lines::default();
            return stdin::answers(questions, out, |line| lines.answer(line));
        }
        supervised(questions, out)
    }
}

/// Answers from a process that is ended, and made anew for the next question, where it does not answer.
fn supervised(questions: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut worker = None;
    stdin::answers(questions, out, |line| {
        let mut running = match worker.take().map_or_else(Worker::start, Ok) {
            Ok(running) => running,
            Err(error) => return refused(&format!("the process for functions does not start: {error}")),
        };
        match running.ask(line) {
            Ok(answer) => {
                worker = Some(running);
                answer
            }
            Err(error) => refused(&error.to_string()),
        }
    })
}
