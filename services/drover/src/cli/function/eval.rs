//! `drover function eval --stdin`: lines answered by a process of its own, which is ended, and made anew for the next
//! line, where it does not answer.

use std::io::{self, BufRead, Write};

use drover_functions::line::{Lines, refused};
use drover_functions::{Watchdog, Worker, WorkerError};

use super::super::stdin;

/// Answers what comes on standard input. `in_process`: this is that process.
pub fn run(in_process: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let questions = &mut io::stdin().lock();
    if in_process {
        let (mut lines, watchdog) = (Lines::default(), Watchdog::start());
        return stdin::answers(questions, out, |line| watchdog.within(|| lines.answer(line)));
    }
    supervised(questions, out)
}

fn supervised(questions: &mut dyn BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let mut worker = None;
    stdin::answers(questions, out, |line| {
        let mut running = match worker.take().map_or_else(|| Worker::start(&program), Ok) {
            Ok(running) => running,
            Err(error) => return refused(&WorkerError::from(error).to_string()),
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
