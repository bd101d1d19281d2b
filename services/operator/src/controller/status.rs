//! Writing what is known of an object: by server-side apply, under the operator's own field manager.

use drover_types::ApiError;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde_json::json;

use super::MANAGER;
use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use crate::crd::Condition;
use crate::domain::condition::{self, ACCEPTED, Verdict};
use crate::domain::problem::Problem;
use crate::domain::time::rfc3339;

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
    let api = Api::<K>::namespaced(context.client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "status": status});
    api.patch_status(&object.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await?;
    context.telemetry.status_written(K::NAME);
    Ok(())
}

/// Says of an object that was never accepted that nobody could be asked about it yet.
pub async fn write_unknown<K: Kind>(object: &K, context: &Context, error: &ApiError) -> Result<(), Failure> {
    let Problem { message, .. } = Problem::refused(error);
    let problem = Problem::new("Unavailable", format!("{message}; it is tried again"));
    let conditions = conditions(object, context, &[Verdict::unknown(ACCEPTED, &problem)]);
    write(object, context, &json!({"conditions": conditions}), &conditions).await
}
