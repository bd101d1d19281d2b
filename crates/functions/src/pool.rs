//! Calls functions, a bounded number at once: each in a process that can be ended, or, where there is no program for
//! such a process, in the calling thread.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;

use crate::call::Limits;
use crate::line::{Answer, ErrorKind, Once};
use crate::script::Script;
use crate::worker::{Worker, WorkerError};

/// Calls at once, and so processes that are kept: half a dozen keep a machine's cores busy, and each has some MiB.
const CALLS_MAX: usize = 4;
/// Longest wait for one of them to be free.
const FREE_MS_MAX: u64 = 2_000;

/// Why a call has no result, in words for whoever wrote the function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// What the function did, or what was done to it.
    #[error("{0}")]
    Failed(String),
    /// It was ended at a limit of time.
    #[error("{0}")]
    Slow(String),
    /// There is no process to call it in.
    #[error("{0}")]
    Unavailable(String),
    #[error("{CALLS_MAX} calls are under way and none ended within {FREE_MS_MAX} ms")]
    Busy,
}

/// Calls functions. Cheap to clone; clones share the processes, which are started when first needed.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    /// What the processes run; `None`: calls are made in the calling thread.
    program: Option<PathBuf>,
    /// The places that are free, with their processes if they have one.
    free: Mutex<Vec<Option<Worker>>>,
    freed: Condvar,
}

/// A place that is taken; dropped, it is free again.
struct Place<'p> {
    shared: &'p Shared,
    worker: Option<Worker>,
}

/// One in whose calling threads functions run: for tests, and where no function is a stranger's. A loop within one of
/// the engine's built-in functions is not ended there.
impl Default for Pool {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Pool {
    /// One whose processes are `program`, this executable for one.
    pub fn in_processes(program: PathBuf) -> Self {
        Self::new(Some(program))
    }

    /// One like it with places of its own: whoever takes all of this one's does not keep the other's callers waiting.
    pub fn apart(&self) -> Self {
        Self::new(self.0.program.clone())
    }

    fn new(program: Option<PathBuf>) -> Self {
        let free = Mutex::new((0..CALLS_MAX).map(|_| None).collect());
        Self(Arc::new(Shared { program, free, freed: Condvar::new() }))
    }

    /// Calls a routine with JSON values and blocks until it has answered: its result as JSON, `None` if it returned
    /// `undefined` or else what is no JSON. Within the limits of [`Limits::default`], and 5 s of the wall.
    pub fn call(&self, source: &str, routine: &str, inputs: &[&RawValue]) -> Result<Option<String>, CallError> {
        let mut place = self.0.place()?;
        let Some(program) = &self.0.program else {
            let inputs: Vec<&str> = inputs.iter().map(|input| input.get()).collect();
            let called = Script::call_once(source, Limits::default(), routine, &inputs);
            return called.map(Some).or_else(|error| of_kind(ErrorKind::of(&error), error.to_string()));
        };
        let failed = |error: &dyn std::fmt::Display| CallError::Failed(error.to_string());
        let unreachable = |error: &WorkerError| CallError::Unavailable(error.to_string());
        let question = serde_json::to_string(&Once { source, routine, inputs }).map_err(|error| failed(&error))?;
        let mut again = true;
        let answer = loop {
            let mut worker = match place.worker.take() {
                Some(worker) => worker,
                None => Worker::start(program).map_err(|error| unreachable(&error.into()))?,
            };
            match worker.ask(&question) {
                Ok(answer) => {
                    place.worker = Some(worker);
                    break answer;
                }
                // Somebody has killed it, when a machine shuts down for one: that is not the function's fault. One that
                // makes the engine crash does it twice.
                Err(WorkerError::Unreachable(_) | WorkerError::Died) if again => again = false,
                Err(error @ WorkerError::Unreachable(_)) => return Err(unreachable(&error)),
                Err(error @ (WorkerError::Stuck | WorkerError::Late)) => {
                    return Err(CallError::Slow(error.to_string()));
                }
                Err(error @ WorkerError::Died) => return Err(failed(&error)),
            }
        };
        let Answer { out, error, kind } = serde_json::from_str(&answer).map_err(|error| failed(&error))?;
        out.map_or_else(|| of_kind(kind, error), |out| Ok(Some(out.get().to_owned())))
    }
}

/// What an error of this kind is to the caller.
fn of_kind(kind: Option<ErrorKind>, message: String) -> Result<Option<String>, CallError> {
    match kind {
        Some(ErrorKind::Undefined) => Ok(None),
        Some(ErrorKind::Slow) => Err(CallError::Slow(message)),
        None => Err(CallError::Failed(message)),
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<Option<Worker>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Result<Place<'_>, CallError> {
        let patience = Duration::from_millis(FREE_MS_MAX);
        let waited = self.freed.wait_timeout_while(self.free(), patience, |free| free.is_empty());
        let (mut free, _) = waited.unwrap_or_else(PoisonError::into_inner);
        // The last to be freed is the first to be taken: what is not needed stays without a process.
        free.pop().map(|worker| Place { shared: self, worker }).ok_or(CallError::Busy)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.free().push(self.worker.take());
        self.shared.freed.notify_one();
    }
}
