//! Controllers: one for each kind of object and namespace, alike in all but what they reconcile.
//!
//! Reconcile = read, validate, plan, apply. What is valid and what is to be done is decided in `domain`; here is what reads
//! and what writes. An object is reconciled by one task at a time, so none of it is locked.

mod authority;
mod context;
mod device;
mod events;
mod failure;
mod fleet;
mod kind;
mod memory;
mod patience;
mod registered;
mod rule;
mod secrets;
mod simple;
mod status;
mod unreadable;

use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use drover_host::Shutdown;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, future};
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::{PredicateConfig, WatchStreamExt, finalizer, reflector, watcher};
use kube::{Api, Resource, ResourceExt};

pub use context::{Context, Parts};
pub use kind::Kind;
pub use unreadable::read;

use crate::crd::{Device, DeviceFleet, Function, Policy, Rule};
use crate::domain::condition;
use crate::domain::problem::passes;
use failure::Failure;

/// Finalizer of every object whose counterpart in the registry has to go first.
pub const FINALIZER: &str = "drover.dev/registry";
/// The operator as the manager of the fields it writes.
pub const MANAGER: &str = "drover-operator";
/// Objects of one page of a list: what the API server and this process hold of it at once. With what managers of fields have
/// written into them objects take ten times their size while they are read.
const PAGE_SIZE: u32 = 100;
/// First wait after a failure; doubled with every further one of the same object.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after failures of the same object.
const BACKOFF_LONGEST: Duration = Duration::from_secs(120);

/// Runs all controllers until `shutdown`, then finishes what is under way.
pub async fn run(context: Arc<Context>, shutdown: Shutdown) {
    let mut controllers: Vec<BoxFuture<'static, ()>> = Vec::new();
    let namespaces = &context.config.namespaces;
    let all = namespaces.is_empty().then_some(None);
    for namespace in all.into_iter().chain(namespaces.iter().map(|name| Some(name.as_str()))) {
        controllers.push(controller::<Device>(context.clone(), namespace, shutdown.clone()).boxed());
        controllers.push(controller::<Rule>(context.clone(), namespace, shutdown.clone()).boxed());
        controllers.push(controller::<Policy>(context.clone(), namespace, shutdown.clone()).boxed());
        controllers.push(controller::<Function>(context.clone(), namespace, shutdown.clone()).boxed());
        controllers.push(controller::<DeviceFleet>(context.clone(), namespace, shutdown.clone()).boxed());
    }
    future::join_all(controllers).await;
}

/// The controller of one kind in one namespace, or in all.
fn controller<K: Kind>(
    context: Arc<Context>,
    namespace: Option<&str>,
    shutdown: Shutdown,
) -> impl Future<Output = ()> + Send + use<K> {
    let (reader, writer) = reflector::store();
    let triggers = K::triggers(&context, namespace, reader.clone());
    let objects = api::<DeserializeGuard<K>>(&context, namespace);
    let changes = watcher(objects, watcher::Config::default().page_size(PAGE_SIZE))
        .default_backoff()
        .modify(|object: &mut DeserializeGuard<K>| object.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(declared::<DeserializeGuard<K>>, PredicateConfig::default());
    let config = Config::default().concurrency(context.config.concurrency);
    Controller::for_stream(changes, reader)
        .with_config(config)
        .reconcile_on(triggers)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(unreadable::read::<K>, failed::<K>, context)
        .for_each(|outcome| {
            match outcome {
                Ok(_) => {}
                // Said by `failed` with the object's name.
                Err(kube::runtime::controller::Error::ReconcilerFailed(..)) => {}
                // Deleted between its turn and now.
                Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
                Err(error) => tracing::warn!(kind = K::NAME, %error, "watch"),
            }
            future::ready(())
        })
}

/// Objects of a kind in one namespace, or in all.
fn api<K: Namespaced>(context: &Context, namespace: Option<&str>) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    }
}

/// What of an object has to change for it to be reconciled: all but its status.
fn declared<K: Resource>(object: &K) -> Option<u64> {
    let meta = object.meta();
    let mut hasher = DefaultHasher::new();
    (&meta.uid, meta.generation, &meta.labels, &meta.annotations, &meta.finalizers).hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    Some(hasher.finish())
}

/// One turn of one object.
pub async fn reconcile<K: Kind>(object: Arc<K>, context: Arc<Context>) -> Result<Action, Failure> {
    let api = Api::<K>::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let begun_ms = context.clock.now_ms();
    let turn = |event: finalizer::Event<K>| {
        let context = &context;
        async move {
            match event {
                finalizer::Event::Apply(object) => applied(&*object, context).await,
                finalizer::Event::Cleanup(object) => cleaned(&*object, context).await,
            }
        }
    };
    let outcome = Box::pin(finalizer::finalizer(&api, FINALIZER, object.clone(), turn)).await;
    let outcome = ended(outcome, &uid(&*object), &context);
    context.telemetry.reconciled(K::NAME, outcome.is_ok(), context.clock.now_ms().saturating_sub(begun_ms));
    outcome
}

/// What a turn has come to: an object that is gone meanwhile is done with. After one that went well neither failures nor
/// how long the object has been going are remembered.
fn ended(outcome: Result<Action, finalizer::Error<Failure>>, uid: &str, context: &Context) -> Result<Action, Failure> {
    let outcome = match outcome.map_err(Failure::from) {
        Err(failure) if failure.is_gone() => Ok(Action::await_change()),
        outcome => outcome,
    };
    if outcome.is_ok() {
        context.failures.forget(uid);
        context.going.forget(uid);
    }
    outcome
}

/// Brings the registry to what the object declares; says so if the registry cannot be asked about what is new.
async fn applied<K: Kind>(object: &K, context: &Context) -> Result<Action, Failure> {
    let outcome = object.apply(context).await;
    if let Err(Failure::Service(error)) = &outcome
        && !condition::is_told(object.conditions(), status::generation(object))
        && context.may_write()
    {
        status::write_unknown(object, context, error).await?;
    }
    outcome
}

/// Takes the object's counterpart away. A registry that cannot be asked does not keep an object, and the namespace around
/// it, for longer than `deletion_patience`.
async fn cleaned<K: Kind>(object: &K, context: &Context) -> Result<Action, Failure> {
    context.forget(&uid(object));
    let failure = match object.cleanup(context).await {
        Ok(()) => return Ok(Action::await_change()),
        Err(failure) => failure,
    };
    match &failure {
        Failure::Service(error) if passes(error) && patience::is_left(object.meta(), context) => Err(failure),
        Failure::Service(_) => {
            patience::left_behind::<K>(object.meta(), context, &failure);
            Ok(Action::await_change())
        }
        Failure::Kubernetes(_) | Failure::Object | Failure::Unreadable => Err(failure),
    }
}

/// The wait after a failed turn.
fn failed<K: Kind>(object: Arc<DeserializeGuard<K>>, failure: &Failure, context: Arc<Context>) -> Action {
    let failures = context.failures.update(uid(&*object), |failures| failures.unwrap_or(0) + 1);
    let wait = backoff(failures);
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    tracing::warn!(kind = K::NAME, namespace, name, %failure, failures, ?wait, "not reconciled");
    Action::requeue(wait)
}

fn backoff(failures: u32) -> Duration {
    doubled(BACKOFF_FIRST, failures).min(BACKOFF_LONGEST)
}

/// The wait after a refusal, which may pass when others change something: `first`, doubled with every further one of the
/// same spec, at most `longest`.
fn refused_wait<K: Kind>(object: &K, context: &Context, first: Duration, longest: Duration) -> Duration {
    let generation = status::generation(object);
    let (_, refusals) = context.refusals.update(uid(object), |former| match former {
        Some((of, refusals)) if of == generation => (of, refusals.saturating_add(1)),
        Some(_) | None => (generation, 1),
    });
    doubled(first, refusals).min(longest)
}

/// `first` at the first time, twice as long each further time.
fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(16))
}

/// The id of an object, unlike that of any other of its name before or after.
pub fn uid(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_default()
}

/// When the object is looked at again although nothing is heard of it: spread, so that many made at once are not.
pub fn resync(object: &impl ResourceExt, context: &Context) -> Duration {
    let mut hasher = DefaultHasher::new();
    object.uid().hash(&mut hasher);
    let every = context.config.resync.as_std();
    every.mul_f64(0.9 + (hasher.finish() % 1_000) as f64 / 5_000.0)
}

/// All kinds are objects of namespaces.
pub trait Namespaced: Resource<Scope = NamespaceResourceScope, DynamicType = ()> {}
impl<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>> Namespaced for K {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let seconds: Vec<u64> = [1, 2, 3, 7, 8, 1_000].map(|failures| backoff(failures).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 64, 120, 120]);
    }

    #[test]
    fn a_status_is_no_reason_to_reconcile_and_all_else_is() {
        let rule = |meta: serde_json::Value| -> Rule {
            let spec = serde_json::json!({"sql": "SELECT * FROM 'a'", "actions": []});
            serde_json::from_value(serde_json::json!({
                "apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": meta, "spec": spec,
            }))
            .expect("a Rule")
        };
        let first = rule(serde_json::json!({"name": "r", "uid": "u", "generation": 1, "resourceVersion": "1"}));
        let status = rule(serde_json::json!({"name": "r", "uid": "u", "generation": 1, "resourceVersion": "2"}));
        assert_eq!(declared(&first), declared(&status));
        for other in [
            serde_json::json!({"name": "r", "uid": "u", "generation": 2}),
            serde_json::json!({"name": "r", "uid": "v", "generation": 1}),
            serde_json::json!({"name": "r", "uid": "u", "generation": 1, "labels": {"a": "b"}}),
            serde_json::json!({"name": "r", "uid": "u", "generation": 1, "annotations": {"drover.dev/adopt": "true"}}),
            serde_json::json!({"name": "r", "uid": "u", "generation": 1, "finalizers": [FINALIZER]}),
        ] {
            assert_ne!(declared(&first), declared(&rule(other)));
        }
    }
}
