//! Ends this process when a call takes far more processor time than the engine allows: the engine looks at its clock in
//! the script's loops and in most of its own, but not within every built-in function.

use std::process::exit;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use cpu_time::ProcessTime;

/// Processor time after which a call is ended with its process, in milliseconds: the engine's own limits, for the
/// script and for the routine, and as much again for what it does between two looks at its clock.
pub const CALL_CPU_MS_MAX: u64 = 200;
/// How a process that was ended so exits.
pub(crate) const EXIT_STUCK: i32 = 86;
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// Words on their way; who calls says one before and one after, and never waits for long.
const WORDS_MAX: usize = 16;

/// What the caller says.
enum Word {
    Begins,
    Ends,
}

/// Watches one thread's calls. Dropping it ends the watching thread.
pub struct Watchdog(SyncSender<Word>);

impl Watchdog {
    /// Starts watching.
    pub fn start() -> Self {
        let (words, heard) = sync_channel(WORDS_MAX);
        thread::spawn(move || watch(&heard));
        Self(words)
    }

    /// Does something that has to end in time; if it does not, this process does.
    pub fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        // Nobody listens only when the thread could not be started: then the caller's own patience has to do.
        self.0.send(Word::Begins).unwrap_or_default();
        let done = call();
        self.0.send(Word::Ends).unwrap_or_default();
        done
    }
}

fn watch(heard: &Receiver<Word>) {
    while let Ok(word) = heard.recv() {
        let Word::Begins = word else { continue };
        let started = ProcessTime::now();
        loop {
            match heard.recv_timeout(LOOK) {
                Ok(Word::Ends) => break,
                Ok(Word::Begins) => {}
                Err(RecvTimeoutError::Timeout) if started.elapsed() > Duration::from_millis(CALL_CPU_MS_MAX) => {
                    exit(EXIT_STUCK);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}
