//! Calls of functions by rules, in the processes of the pool. The engine waits, at most as long as a function may take;
//! other tasks of the runtime do not. A function that meets its limits of time again and again is not called for a
//! while, so that it does not hold up the rules of others.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_functions::{CallError, Pool};
use drover_types::object::FunctionSpec;
use serde_json::value::RawValue;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// How often in a row a function may meet a limit of time; after that its calls fail at once.
const SLOW_MAX: u32 = 3;
/// For how long they do. The next call after that may meet the limit once.
const SUSPENDED: Duration = Duration::from_secs(10);
/// Most functions whose slowness is remembered; when there are more, all is forgotten.
const REMEMBERED_MAX: usize = 1_000;

/// Calls functions, and remembers which were slow. Shared by all sessions of the engine.
pub struct Functions {
    pool: Pool,
    slow: Mutex<HashMap<u64, Slow>>,
    hasher: RandomState,
    /// Why a call could not be made, which says nothing of its message.
    outage: Mutex<Option<String>>,
}

/// A function whose last calls were slow.
struct Slow {
    times: u32,
    last: Instant,
}

impl Functions {
    /// Calls by `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool, slow: Mutex::default(), hasher: RandomState::new(), outage: Mutex::default() }
    }

    /// Why calls since this was last asked could not be made. What has come of their messages must not be kept.
    pub fn take_outage(&self) -> Option<String> {
        self.outage().take()
    }

    /// Calls a function with JSON texts; its result is JSON, or none. The error says what went wrong, for a dead letter
    /// unless [`Functions::take_outage`] tells of it.
    pub fn call(&self, function: &FunctionSpec, inputs: &[String]) -> Result<Option<String>, String> {
        if let Some(outage) = &*self.outage() {
            return Err(outage.clone());
        }
        // A new version of a function is another one.
        let key = self.hasher.hash_one((&function.source, &function.routine));
        let suspended = |slow: &Slow| slow.times >= SLOW_MAX && slow.last.elapsed() < SUSPENDED;
        if self.slow().get(&key).is_some_and(suspended) {
            return Err(format!("is not called for {SUSPENDED:?}, as it took too long {SLOW_MAX} times in a row"));
        }
        let outcome = self.called(function, inputs);
        if let Err(outage @ (CallError::Busy | CallError::Unavailable(_))) = &outcome {
            *self.outage() = Some(outage.to_string());
        }
        let mut slow = self.slow();
        if let Err(CallError::Slow(_)) = &outcome {
            if slow.len() >= REMEMBERED_MAX {
                slow.clear();
            }
            let times = slow.get(&key).map_or(1, |slow| slow.times + 1);
            slow.insert(key, Slow { times, last: Instant::now() });
        } else if !slow.is_empty() {
            slow.remove(&key);
        }
        outcome.map_err(|error| error.to_string())
    }

    fn called(&self, function: &FunctionSpec, inputs: &[String]) -> Result<Option<String>, CallError> {
        let inputs: Vec<&RawValue> = inputs
            .iter()
            .map(|input| serde_json::from_str(input))
            .collect::<Result<_, _>>()
            .map_err(|error| CallError::Failed(format!("argument: {error}")))?;
        let call = || self.pool.call(&function.source, &function.routine, &inputs);
        // A runtime of one thread has no other to give its tasks to.
        let many = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        if many { tokio::task::block_in_place(call) } else { call() }
    }

    fn outage(&self) -> MutexGuard<'_, Option<String>> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slow(&self) -> MutexGuard<'_, HashMap<u64, Slow>> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(source: &str) -> FunctionSpec {
        FunctionSpec { source: source.to_owned(), routine: "main".to_owned(), examples: Vec::new() }
    }

    #[tokio::test]
    async fn where_no_process_can_be_started_it_is_told_apart_from_what_a_function_does() {
        let functions = Functions::new(Pool::in_processes("/no/such/program".into()));
        let told = functions.call(&function("function main() { return 1; }"), &[]).expect_err("no process");
        assert_eq!(functions.take_outage(), Some(told));
        assert_eq!(functions.take_outage(), None, "told once");
        let functions = Functions::new(Pool::default());
        assert!(functions.call(&function("function main() { throw 1; }"), &[]).is_err());
        assert_eq!(functions.take_outage(), None, "its own fault");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_is_slow_again_and_again_is_not_called_for_a_while() {
        let functions = Functions::new(Pool::default());
        let sometimes = function("function main(n) { while (n === 0) {} return n; }");
        let other = function("function main(n) { return n; }");
        let call = |n: u32| functions.call(&sometimes, &[n.to_string()]);
        let is_slow = |outcome: Result<_, String>| outcome.is_err_and(|error| error.contains("processor time"));
        assert!(is_slow(call(0)) && is_slow(call(0)));
        assert_eq!(call(1), Ok(Some("1".to_owned())), "which begins the count anew");
        assert!(is_slow(call(0)) && is_slow(call(0)) && is_slow(call(0)));
        let suspended = call(1).expect_err("suspended");
        assert!(suspended.starts_with("is not called for 10s"), "{suspended}");
        assert_eq!(functions.call(&other, &["2".to_owned()]), Ok(Some("2".to_owned())));
        tokio::time::advance(SUSPENDED).await;
        assert!(is_slow(call(0)));
        assert!(call(1).expect_err("suspended").starts_with("is not called"), "once is enough now");
        tokio::time::advance(SUSPENDED).await;
        assert_eq!(call(1), Ok(Some("1".to_owned())));
        assert_eq!(call(2), Ok(Some("2".to_owned())));
    }
}
