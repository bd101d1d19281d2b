//! Writing what is known of an object: by server-side apply, under the operator's own field manager.

use std::time::Duration;

use drover_types::ApiError;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use serde::Serialize;
use serde_json::json;

use super::MANAGER;
use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use crate::crd::Condition;
use crate::domain::condition::{self, ACCEPTED, READY, Verdict};
use crate::domain::problem::Problem;
use crate::domain::time::rfc3339;

/// How soon a status is tried again that could not be written by the rate of all of them.
pub const DEFERRED_RETRY: Duration = Duration::from_secs(5);

/// Conditions of an object that say `verdicts` now; the generation is the object's.
pub fn conditions<K: Kind>(object: &K, context: &Context, verdicts: &[Verdict]) -> Vec<Condition> {
    let now = rfc3339(context.clock.now_ms());
    condition::conditions(object.conditions(), verdicts, generation(object), &now)
}

/// The generation of the object's spec.
pub fn generation<K: Kind>(object: &K) -> i64 {
    object.meta().generation.unwrap_or_default()
}

/// Writes the status, and an Event about trouble that is new.
pub async fn write<K: Kind>(
    object: &K,
    context: &Context,
    status: &impl Serialize,
    conditions: &[Condition],
) -> Result<(), Failure> {
    if let Some(trouble) = condition::new_trouble(object.conditions(), conditions) {
        context.events.warning(object, &trouble.reason, trouble.message.clone()).await;
    }
    patch::<K>(context, object.meta(), status).await
}

/// Writes the status of the object with this metadata. Of the answer only its metadata is read.
pub async fn patch<K: Kind>(context: &Context, metadata: &ObjectMeta, status: &impl Serialize) -> Result<(), Failure> {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    let (Some(namespace), Some(name)) = (namespace, name) else { return Err(Failure::Object) };
    let api = Api::<PartialObjectMeta<K>>::namespaced(context.client.clone(), namespace);
    let patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    api.patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await?;
    context.telemetry.status_written(K::NAME);
    Ok(())
}

/// Says of an object that nobody could be asked about it, or about its new spec, yet; what else is known of it stays.
pub async fn write_unknown<K: Kind>(object: &K, context: &Context, error: &ApiError) -> Result<(), Failure> {
    let message = format!("{}; it is tried again", Problem::refused(error).message);
    let problem = Problem::new("Unavailable", message.clone());
    let ready = Verdict::unknown(READY, &Problem::new("NotAccepted", "see Accepted"));
    let unknown = conditions(object, context, &[Verdict::unknown(ACCEPTED, &problem), ready]);
    let conditions = condition::with_others(unknown, object.conditions());
    let mut status = serde_json::to_value(object).expect("an object is plain data")["status"].take();
    if !status.is_object() {
        status = json!({});
    }
    status["conditions"] = json!(conditions);
    context.events.warning(object, problem.reason, message).await;
    write(object, context, &status, &conditions).await
}
