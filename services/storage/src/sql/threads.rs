//! Threads of their own for questions: they do not hold up what is stored, and have the stack that planning needs.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use super::statement::STACK_BYTES;
use super::turns::AT_ONCE;

/// Reads of an embedded store under way at the same time.
const READS: usize = 8;

/// The threads; questions under way end when it is dropped.
pub struct Threads(Option<Runtime>);

impl Threads {
    pub fn start() -> io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        threads
            // One a turn: a join gives way to nobody while it compares.
            .worker_threads(AT_ONCE)
            .max_blocking_threads(READS)
            .thread_stack_size(STACK_BYTES)
            .thread_name("storage-sql")
            .enable_all();
        Ok(Self(Some(threads.build()?)))
    }

    /// Where to spawn.
    pub fn handle(&self) -> &Handle {
        self.0.as_ref().map(Runtime::handle).expect("there until it is dropped")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // It may be dropped by a thread of a runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
