//! Calls of functions by rules, in the processes of the pool. The engine waits, at most as long as a function may take;
//! other tasks of the runtime do not. A function that has taken more than its share of the engine's time is not called
//! for a while, so that it does not hold up the rules of others; and what the functions of one tenant take of a single
//! batch is bounded however quick each call is.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_functions::{CallError, Pool};
use drover_types::TenantId;
use drover_types::object::FunctionSpec;
use serde_json::value::RawValue;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

use crate::telemetry::Telemetry;

/// What a tenant's function may take of [`WINDOW`], by the wall; beyond, its calls fail at once until that is past.
const SPENT_MAX: Duration = Duration::from_secs(1);
/// The time that is looked back at, in [`SLICES`].
const WINDOW: Duration = Duration::from_secs(10);
const SLICES: u32 = 10;
/// What a call may take without being counted: an engine for a long script takes as much to start (ADR 16), and a
/// function that is called often is not to blame for that.
const ORDINARY: Duration = Duration::from_millis(5);
/// What all functions may take of one batch, by the wall, before it is committed: latency is that of the batch.
pub const BATCH_MAX: Duration = Duration::from_secs(1);
/// What the functions of one tenant may take of one batch; beyond, its calls fail at once until the batch is committed.
/// Batches end after a message, so this is about what a single message may cost.
const TENANT_BATCH_MAX: Duration = Duration::from_secs(5);
/// Most functions whose time is remembered; when there are more, all is forgotten.
const REMEMBERED_MAX: usize = 1_000;

/// Calls functions, and remembers what they took. Shared by all sessions of the engine.
pub struct Functions {
    pool: Pool,
    spent: Mutex<HashMap<u64, Spent>>,
    /// Slices of time are counted from here.
    since: Instant,
    hasher: RandomState,
    /// Why a call could not be made, which says nothing of its message.
    outage: Mutex<Option<String>>,
    batch: Mutex<Taken>,
    telemetry: Telemetry,
}

/// What calls have taken of the batch in hand.
#[derive(Default)]
struct Taken {
    all: Duration,
    by_tenant: HashMap<TenantId, Duration>,
}

/// What the calls of a function took in each slice of the window, by the slices' numbers.
#[derive(Default)]
struct Spent(VecDeque<(u128, Duration)>);

impl Spent {
    fn add(&mut self, slice: u128, took: Duration) {
        self.0.retain(|(at, _)| at + u128::from(SLICES) > slice);
        match self.0.back_mut() {
            Some((at, sum)) if *at == slice => *sum += took,
            Some(_) | None => self.0.push_back((slice, took)),
        }
    }

    /// In the window that ends with `slice`.
    fn sum(&self, slice: u128) -> Duration {
        self.0.iter().filter(|(at, _)| at + u128::from(SLICES) > slice).map(|(_, took)| *took).sum()
    }
}

impl Functions {
    /// Calls by `pool`.
    pub fn new(pool: Pool, telemetry: Telemetry) -> Self {
        Self {
            pool,
            spent: Mutex::default(),
            since: Instant::now(),
            hasher: RandomState::new(),
            outage: Mutex::default(),
            batch: Mutex::default(),
            telemetry,
        }
    }

    /// A new batch begins, of which nothing is taken.
    pub fn begin_batch(&self) {
        *self.batch() = Taken::default();
    }

    /// What calls have taken of the batch in hand.
    pub fn taken(&self) -> Duration {
        self.batch().all
    }

    /// Why calls since this was last asked could not be made. What has come of their messages must not be kept.
    pub fn take_outage(&self) -> Option<String> {
        self.outage().take()
    }

    /// Calls a tenant's function with JSON texts; its result is JSON, or none. The error says what went wrong, for a dead
    /// letter unless [`Functions::take_outage`] tells of it.
    pub fn call(
        &self,
        tenant: &TenantId,
        function: &FunctionSpec,
        inputs: &[String],
    ) -> Result<Option<String>, String> {
        if let Some(outage) = &*self.outage() {
            return Err(outage.clone());
        }
        // A new version of a function is another one.
        let key = self.hasher.hash_one((tenant.as_str(), &function.source, &function.routine));
        if let Some(refusal) = self.refusal(tenant, key) {
            self.telemetry.function_calls_refused.inc();
            return Err(refusal);
        }
        let started = Instant::now();
        let outcome = self.called(function, inputs);
        if let Err(outage @ (CallError::Busy | CallError::Unavailable(_))) = &outcome {
            *self.outage() = Some(outage.to_string());
        }
        self.charge(tenant, key, started.elapsed());
        outcome.map_err(|error| error.to_string())
    }

    /// Calls a function with a row, JSON, for an action, and blocks: of a batch it takes nothing, of what the function may
    /// take of a while as much as it takes. Then it is not called, as if there were no process for it.
    pub fn call_alone(
        &self,
        tenant: &TenantId,
        function: &FunctionSpec,
        row: String,
    ) -> Result<Option<String>, CallError> {
        let key = self.hasher.hash_one((tenant.as_str(), &function.source, &function.routine));
        if let Some(refusal) = self.overspent(key) {
            self.telemetry.function_calls_refused.inc();
            return Err(CallError::Unavailable(refusal));
        }
        let input = RawValue::from_string(row).map_err(|error| CallError::Failed(format!("row: {error}")))?;
        let started = Instant::now();
        let outcome = self.pool.call(&function.source, &function.routine, &[&*input]);
        self.spend(key, started.elapsed());
        outcome
    }

    /// Why a function is not called now, if it is not.
    fn refusal(&self, tenant: &TenantId, key: u64) -> Option<String> {
        if let Some(refusal) = self.overspent(key) {
            return Some(refusal);
        }
        let over = self.batch().by_tenant.get(tenant).is_some_and(|taken| *taken > TENANT_BATCH_MAX);
        over.then(|| format!("is not called: functions took more than {TENANT_BATCH_MAX:?} of one batch of messages"))
    }

    /// Whether a function has taken its share of the last while, in words.
    fn overspent(&self, key: u64) -> Option<String> {
        let slice = self.slice();
        let over = self.spent().get(&key).is_some_and(|spent| spent.sum(slice) > SPENT_MAX);
        over.then(|| format!("is not called for a while: it took more than {SPENT_MAX:?} of the last {WINDOW:?}"))
    }

    /// Remembers what a call of the function took of the batch and of the last while.
    fn charge(&self, tenant: &TenantId, key: u64, took: Duration) {
        {
            let mut batch = self.batch();
            batch.all += took;
            *batch.by_tenant.entry(tenant.clone()).or_default() += took;
        }
        self.spend(key, took);
    }

    /// Remembers what a call of the function took of the last while.
    fn spend(&self, key: u64, took: Duration) {
        self.telemetry.function_seconds.inc_by(took.as_secs_f64());
        let took = took.saturating_sub(ORDINARY);
        if took.is_zero() {
            return;
        }
        let (slice, mut spent) = (self.slice(), self.spent());
        if spent.len() >= REMEMBERED_MAX && !spent.contains_key(&key) {
            spent.clear();
        }
        spent.entry(key).or_default().add(slice, took);
    }

    /// The number of the slice of time that it is now.
    fn slice(&self) -> u128 {
        self.since.elapsed().as_millis() / (WINDOW / SLICES).as_millis()
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

    fn batch(&self) -> MutexGuard<'_, Taken> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> MutexGuard<'_, HashMap<u64, Spent>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn function(source: &str) -> FunctionSpec {
        FunctionSpec { source: source.to_owned(), routine: "main".to_owned(), examples: Vec::new() }
    }

    fn functions(pool: Pool) -> Functions {
        Functions::new(pool, Telemetry::register(&mut Registry::default()))
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("a name")
    }

    #[tokio::test]
    async fn where_no_process_can_be_started_it_is_told_apart_from_what_a_function_does() {
        let functions = functions(Pool::in_processes("/no/such/program".into()));
        let told =
            functions.call(&tenant("a"), &function("function main() { return 1; }"), &[]).expect_err("no process");
        assert_eq!(functions.take_outage(), Some(told));
        assert_eq!(functions.take_outage(), None, "told once");
        let functions = super::tests::functions(Pool::default());
        assert!(functions.call(&tenant("a"), &function("function main() { throw 1; }"), &[]).is_err());
        assert_eq!(functions.take_outage(), None, "its own fault");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_that_took_more_than_its_share_is_not_called_for_a_while() {
        let functions = functions(Pool::default());
        let (function, mine, other) = (function("function main(n) { return n; }"), tenant("a"), tenant("b"));
        let call = |tenant: &TenantId| functions.call(tenant, &function, &["1".to_owned()]);
        let key = functions.hasher.hash_one((mine.as_str(), &function.source, &function.routine));
        // Time stands still in the test: what calls took is told.
        for _ in 0..10 {
            functions.charge(&mine, key, ORDINARY + SPENT_MAX / 10);
            assert_eq!(call(&mine), Ok(Some("1".to_owned())), "quick ones do not clear what is owed");
        }
        tokio::time::advance(WINDOW / 2).await;
        functions.charge(&mine, key, ORDINARY);
        assert_eq!(call(&mine), Ok(Some("1".to_owned())), "what is ordinary is not counted");
        functions.charge(&mine, key, ORDINARY + Duration::from_millis(50));
        assert!(call(&mine).expect_err("suspended").starts_with("is not called for a while"));
        assert_eq!(call(&other), Ok(Some("1".to_owned())), "the same function of somebody else");
        tokio::time::advance(WINDOW / 2).await;
        assert_eq!(call(&mine), Ok(Some("1".to_owned())), "the first second is past");
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_of_actions_has_its_share_too_but_takes_nothing_of_a_batch() {
        let functions = functions(Pool::default());
        let (function, mine) = (function("function main(n) { return n; }"), tenant("a"));
        let call = || functions.call_alone(&mine, &function, "1".to_owned());
        assert_eq!((call(), functions.taken()), (Ok(Some("1".to_owned())), Duration::ZERO));
        let key = functions.hasher.hash_one((mine.as_str(), &function.source, &function.routine));
        functions.spend(key, ORDINARY + 2 * SPENT_MAX);
        assert!(matches!(call(), Err(CallError::Unavailable(_))), "suspended");
        assert_eq!(functions.taken(), Duration::ZERO);
        tokio::time::advance(WINDOW).await;
        assert_eq!(call(), Ok(Some("1".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_functions_of_a_tenant_take_of_one_batch_is_bounded_however_quick_each_call_is() {
        let functions = functions(Pool::default());
        let (function, mine, other) = (function("function main(n) { return n; }"), tenant("a"), tenant("b"));
        let call = |tenant: &TenantId| functions.call(tenant, &function, &["1".to_owned()]);
        for key in 0..=1_000 {
            assert_eq!(call(&mine), Ok(Some("1".to_owned())));
            functions.charge(&mine, key, ORDINARY);
        }
        assert!(functions.taken() > TENANT_BATCH_MAX);
        assert!(call(&mine).expect_err("refused").contains("more than 5s of one batch"));
        assert_eq!(call(&other), Ok(Some("1".to_owned())), "others have their own");
        assert_eq!(functions.telemetry.function_calls_refused.get(), 1);
        functions.begin_batch();
        assert_eq!((call(&mine), functions.taken()), (Ok(Some("1".to_owned())), Duration::ZERO));
    }
}
