//! Objects that this operator cannot read, of a CRD that is newer than it for one: they are told so, and keep none of their kind
//! from being read.

use std::sync::Arc;

use kube::Api;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, ObjectMeta, PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::controller::Action;
use kube::runtime::finalizer;
use serde_json::json;

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::registered::refused;
use super::{FINALIZER, patience, reconcile, status};
use crate::domain::condition;
use crate::domain::problem::Problem;
use crate::domain::time::rfc3339;

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

/// Says so in the status, once a generation.
async fn tell<K: Kind>(invalid: &InvalidObject, context: &Context) -> Result<Action, Failure> {
    let InvalidObject { error, metadata } = invalid;
    let generation = metadata.generation.unwrap_or_default();
    let uid = metadata.uid.clone().unwrap_or_default();
    if context.refusals.get(&uid).is_some_and(|(of, _)| of == generation) {
        return Ok(Action::await_change());
    }
    let (version, error) = (env!("CARGO_PKG_VERSION"), error.chars().take(ERROR_CHARS_MAX).collect::<String>());
    let message = format!("operator {version} cannot read it: {error}; use one that is as new as the CRD");
    let now = rfc3339(context.clock.now_ms());
    let problem = Problem::new("Unreadable", message);
    let conditions = condition::conditions(&[], &refused(&problem), generation, &now);
    let status = json!({"conditions": conditions, "observedGeneration": generation});
    status::patch::<K>(context, metadata, &status).await?;
    context.refusals.update(uid, |_| (generation, 1));
    Ok(Action::await_change())
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
    Box::pin(finalizer::finalizer(&api, FINALIZER, object, turn)).await.map_err(Failure::from)
}
