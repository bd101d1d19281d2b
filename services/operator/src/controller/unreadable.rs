//! Objects that this operator cannot read, of a CRD that is newer than it for one: they are told so, and keep none of their kind
//! from being read.

use std::sync::Arc;

use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::controller::Action;
use kube::runtime::finalizer;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::registered::refused;
use super::{FINALIZER, ended, patience, reconcile, status};
use crate::crd::Condition;
use crate::domain::condition::{self, ACCEPTED};
use crate::domain::problem::Problem;
use crate::domain::time::rfc3339;

/// Why an object is not accepted that cannot be read.
const UNREADABLE: &str = "Unreadable";
/// Longest quotation of what is wrong, in characters.
const ERROR_CHARS_MAX: usize = 1_000;

/// One turn of an object as it comes from the API server.
pub async fn read<K: Kind>(object: Arc<DeserializeGuard<K>>, context: Arc<Context>) -> Result<Action, Failure> {
    match &object.0 {
        Ok(object) => reconcile(Arc::new(object.clone()), context).await,
        Err(invalid) if invalid.metadata.deletion_timestamp.is_some() => let_go::<K>(&invalid.metadata, &context).await,
        Err(invalid) => tell::<K>(invalid, &context).await,
    }
}

/// Says so in the status, once a generation; what else is known of the object stays.
async fn tell<K: Kind>(invalid: &InvalidObject, context: &Context) -> Result<Action, Failure> {
    let InvalidObject { error, metadata } = invalid;
    let generation = metadata.generation.unwrap_or_default();
    let uid = metadata.uid.clone().unwrap_or_default();
    if context.refusals.get(&uid).is_some_and(|(of, _)| of == generation) {
        return Ok(Action::await_change());
    }
    let Some(mut status) = written::<K>(metadata, context).await? else { return Ok(Action::await_change()) };
    let former: Vec<Condition> = {
        let said = status["conditions"].as_array().into_iter().flatten();
        said.filter_map(|value| Condition::deserialize(value).ok()).collect()
    };
    // By this process before its restart, or by another.
    let is_told = condition::find(&former, ACCEPTED)
        .is_some_and(|said| said.reason == UNREADABLE && said.observed_generation == Some(generation));
    if !is_told {
        if !context.may_write() {
            return Ok(Action::requeue(status::DEFERRED_RETRY));
        }
        let (version, error) = (env!("CARGO_PKG_VERSION"), error.chars().take(ERROR_CHARS_MAX).collect::<String>());
        let message = format!("operator {version} cannot read it: {error}; use one that is as new as the CRD");
        let now = rfc3339(context.clock.now_ms());
        let problem = Problem::new(UNREADABLE, message);
        let said = condition::conditions(&former, &refused(&problem), generation, &now);
        status["conditions"] = json!(condition::with_others(said, &former));
        status["observedGeneration"] = json!(generation);
        status::patch::<K>(context, metadata, &status).await?;
    }
    context.failures.forget(&uid);
    context.refusals.update(uid, |_| (generation, 1));
    Ok(Action::await_change())
}

/// The status as the API server has it, an object; `None`: nothing of this name is there any more.
async fn written<K: Kind>(metadata: &ObjectMeta, context: &Context) -> Result<Option<Value>, Failure> {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let (Some(namespace), Some(name)) = (namespace, name) else { return Err(Failure::Object) };
    let resource = ApiResource::erase::<K>(&());
    let api = Api::<DynamicObject>::namespaced_with(context.client.clone(), namespace, &resource);
    let Some(object) = api.get_opt(name).await? else { return Ok(None) };
    let status = object.data.get("status").filter(|status| status.is_object());
    Ok(Some(status.cloned().unwrap_or_else(|| json!({}))))
}

/// Waits for an operator that can read what goes, as long as for a registry that is away: what it stands for cannot be deleted
/// by this one.
async fn let_go<K: Kind>(metadata: &ObjectMeta, context: &Context) -> Result<Action, Failure> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let api = Api::<PartialObjectMeta<K>>::namespaced(context.client.clone(), namespace);
    let turn = |_: finalizer::Event<PartialObjectMeta<K>>| async move {
        if patience::is_left(metadata, context) {
            return Err(Failure::Unreadable);
        }
        patience::left_behind::<K>(metadata, context, &Failure::Unreadable);
        Ok(Action::await_change())
    };
    let object = Arc::new(metadata.clone().into_response_partial::<K>());
    let outcome = Box::pin(finalizer::finalizer(&api, FINALIZER, object, turn)).await;
    let uid = metadata.uid.clone().unwrap_or_default();
    let outcome = ended(outcome, &uid, context);
    if outcome.is_ok() {
        context.forget(&uid);
    }
    outcome
}
