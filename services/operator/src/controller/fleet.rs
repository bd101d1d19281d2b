//! Fleets: many devices in the registry, none of them an object of the cluster.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use drover_types::{TenantId, subdomain};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt, future};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};

use super::authority;
use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::registered::refused;
use super::{PAGE_SIZE, api, refused_wait, resync, status, uid};
use crate::crd::{Condition, DeviceFleet, DeviceFleetStatus};
use crate::domain::condition::{self, ACCEPTED, READY, Verdict};
use crate::domain::fleet::{Fleet, Tally, Walk, parts};
use crate::domain::problem::{Problem, passes};
use crate::domain::rule::tenant;
use crate::domain::time::rfc3339;
use crate::ports::{BULK_MAX, Refusal};

/// Bulk calls under way for one fleet at the same time.
const CALLS_AT_ONCE: usize = 4;

#[async_trait]
impl Kind for DeviceFleet {
    const NAME: &'static str = "DeviceFleet";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    /// A table, or an authority, has changed. Of ConfigMaps only their metadata is watched, and none of it is kept.
    fn triggers(
        context: &Context,
        namespace: Option<&str>,
        known: Store<DeserializeGuard<Self>>,
    ) -> BoxStream<'static, ObjectRef<DeserializeGuard<Self>>> {
        let config = watcher::Config::default().page_size(PAGE_SIZE);
        watcher(api::<PartialObjectMeta<ConfigMap>>(context, namespace), config)
            .default_backoff()
            .touched_objects()
            .inspect_err(|error| tracing::warn!(%error, "watch of ConfigMaps"))
            .filter_map(|map| future::ready(map.ok()))
            .flat_map(move |map| stream::iter(fleets_of(&known.state(), &map)))
            .boxed()
    }

    async fn apply(&self, context: &Context) -> Result<Action, Failure> {
        if let Some(source) = &self.spec.source.certificate_authority {
            return authority::apply(self, source, context).await;
        }
        let fleet = match declared(self, context).await? {
            Ok(fleet) => fleet,
            Err(problem) => {
                let former = self.status.clone().unwrap_or_default();
                write_status(self, context, &refused(&problem), former).await?;
                // A table may come or be mended; of all else only a change of the object helps.
                return Ok(match self.spec.source.csv {
                    Some(_) => Action::requeue(again(self, context)),
                    None => Action::await_change(),
                });
            }
        };
        let tally = bring_about(&fleet, &tenant(self)?, &owner(self, context), context).await?;
        let was_ready = condition::find(self.conditions(), READY).is_some_and(|ready| ready.status == "True");
        if was_ready && tally.changed > 0 && condition::was_accepted(self.conditions(), status::generation(self)) {
            let note = format!("devices changed elsewhere and set back: {}", tally.changed);
            context.events.warning(self, "Drift", note).await;
            context.telemetry.drift(Self::NAME);
        }
        let declared = fleet.len() as i64;
        let verdicts = [Verdict::holds(ACCEPTED, "Read", "the source can be read"), ready(&tally, declared)];
        let status = DeviceFleetStatus {
            declared: Some(declared),
            registered: Some(tally.registered),
            connected: Some(tally.connected),
            converged: tally.converged,
            failed: Some(tally.failed),
            first_errors: tally.first_errors,
            ..DeviceFleetStatus::default()
        };
        write_status(self, context, &verdicts, status).await?;
        if tally.failed > 0 {
            return Ok(Action::requeue(again(self, context)));
        }
        context.refusals.forget(&uid(self));
        Ok(Action::requeue(context.config.status_interval.as_std()))
    }

    async fn cleanup(&self, context: &Context) -> Result<(), Failure> {
        let (tenant, owner) = (tenant(self)?, owner(self, context));
        if self.spec.source.certificate_authority.is_some() {
            // First, so that no device comes after those that are deleted.
            authority::delete(self, &tenant, &owner, context).await?;
        }
        let (mut after, mut awaited) = (String::new(), None);
        loop {
            let page = context.registry.devices(&tenant, &after).await?;
            let ours = page.devices.into_iter().filter(|device| device.object.owner == owner);
            let refusals = delete(context, &tenant, &owner, ours.map(|device| device.name).collect()).await?;
            // Whoever has another owner by now, or is gone, is not this fleet's any more.
            if let Some(Refusal { name, error }) = refusals.first() {
                tracing::warn!(fleet = self.name_any(), device = name, %error, "not deleted");
            }
            // Any other is, and keeps the fleet until it can be deleted.
            awaited = awaited.or_else(|| refusals.into_iter().map(|refusal| refusal.error).find(passes));
            after = page.next;
            if after.is_empty() {
                return awaited.map_or(Ok(()), |error| Err(error.into()));
            }
        }
    }
}

/// When a fleet is tried again of which something was refused: each time is a walk along all its devices.
pub(super) fn again(fleet: &DeviceFleet, context: &Context) -> Duration {
    refused_wait(fleet, context, resync(fleet, context), context.config.status_interval.as_std())
}

/// How the registry knows the devices of a fleet from all others.
pub(super) fn owner(fleet: &DeviceFleet, context: &Context) -> String {
    format!("{}/fleets/{}", context.config.owner, fleet.name_any())
}

/// The fleets whose table or authority is in this ConfigMap.
fn fleets_of(
    fleets: &[Arc<DeserializeGuard<DeviceFleet>>],
    map: &impl ResourceExt,
) -> Vec<ObjectRef<DeserializeGuard<DeviceFleet>>> {
    let reads = |fleet: &&Arc<DeserializeGuard<DeviceFleet>>| {
        let read = fleet.0.as_ref().ok().and_then(|fleet| fleet.spec.source.config_map());
        fleet.namespace() == map.namespace() && read.is_some_and(|name| name == map.name_any())
    };
    fleets.iter().filter(reads).map(|fleet| ObjectRef::from_obj(&**fleet)).collect()
}

/// The devices that are declared, or why they cannot be known.
async fn declared(fleet: &DeviceFleet, context: &Context) -> Result<Result<Fleet, Problem>, Failure> {
    let table = match &fleet.spec.source.csv {
        None => None,
        Some(csv) => {
            if let Err(error) = subdomain("spec.source.csv.configMap", &csv.config_map) {
                return Ok(Err(Problem::refused(&error)));
            }
            let api = Api::<ConfigMap>::namespaced(context.client.clone(), &fleet.namespace().unwrap_or_default());
            let found = api.get_opt(&csv.config_map).await?.and_then(|map| map.data?.remove(&csv.key));
            let Some(table) = found else {
                let message = format!("ConfigMap {} with key {} does not exist", csv.config_map, csv.key);
                return Ok(Err(Problem::new("ConfigMapMissing", message)));
            };
            Some(table)
        }
    };
    let devices_max = context.config.fleet_devices_max;
    let declared = Fleet::new(tenant(fleet)?, owner(fleet, context), &fleet.spec, table.as_deref(), devices_max);
    Ok(declared.map_err(|error| Problem::refused(&error)))
}

/// What `of` makes of the tenant's devices whose shadows want what is not reported. `None`, which keeps nothing else from being
/// told: nobody can tell now, or it is more than a fleet may have devices.
pub(super) async fn open<T: Eq + Hash>(
    tenant: &TenantId,
    context: &Context,
    of: impl Fn(&str) -> Option<T>,
) -> Option<HashSet<T>> {
    let (mut open, mut after) = (HashSet::new(), String::new());
    while open.len() as u64 <= context.config.fleet_devices_max {
        let page = match context.shadows.open_deltas(tenant, &after).await {
            Ok(page) => page,
            Err(error) => {
                tracing::info!(%tenant, %error, "which devices of a fleet have converged is not known");
                return None;
            }
        };
        open.extend(page.devices.iter().filter_map(|device| of(device)));
        after = page.next;
        if after.is_empty() {
            return Some(open);
        }
    }
    let limit = context.config.fleet_devices_max;
    tracing::info!(%tenant, limit, "which devices of a fleet have converged is not known: too many have not");
    None
}

/// Walks along the registry's list and writes what differs.
async fn bring_about(fleet: &Fleet, tenant: &TenantId, owner: &str, context: &Context) -> Result<Tally, Failure> {
    let mut walk = Walk::new(fleet, open(tenant, context, |name| fleet.place(name)).await);
    let mut after = String::new();
    loop {
        let page = context.registry.devices(tenant, &after).await?;
        walk.page(&page.devices);
        after = page.next;
        if after.is_empty() {
            walk.end();
        }
        put(context, fleet, &mut walk).await?;
        for Refusal { name, error } in delete(context, tenant, owner, std::mem::take(&mut walk.delete)).await? {
            walk.fail(name, error.message);
        }
        if after.is_empty() {
            return Ok(walk.tally());
        }
    }
}

async fn put(context: &Context, fleet: &Fleet, walk: &mut Walk<'_>) -> Result<(), Failure> {
    let places = std::mem::take(&mut walk.put);
    // Lazy: what a call sends is made when its turn comes.
    let calls: Vec<_> = places.chunks(BULK_MAX).map(|places| put_some(context, fleet, places)).collect();
    let mut answers = stream::iter(calls).buffered(CALLS_AT_ONCE);
    while let Some((count, refusals)) = answers.try_next().await? {
        walk.written(count, refusals);
    }
    Ok(())
}

/// One bulk call, or as many as the size of the devices takes: how many devices were in it, and those that were refused.
async fn put_some(context: &Context, fleet: &Fleet, places: &[usize]) -> Result<(usize, Vec<Refusal>), Failure> {
    let wanted: Vec<_> = places.iter().map(|place| fleet.wanted(*place)).collect();
    let mut refusals = Vec::new();
    for part in parts(&wanted) {
        refusals.extend(context.registry.put_devices(part).await?);
    }
    context.telemetry.fleet_written(wanted.len() - refusals.len());
    Ok((wanted.len(), refusals))
}

async fn delete(
    context: &Context,
    tenant: &TenantId,
    owner: &str,
    names: Vec<String>,
) -> Result<Vec<Refusal>, Failure> {
    let mut refusals = Vec::new();
    for names in names.chunks(BULK_MAX) {
        refusals.extend(context.registry.delete_devices(tenant, owner, names).await?);
    }
    Ok(refusals)
}

fn ready(tally: &Tally, declared: i64) -> Verdict {
    if tally.failed == 0 {
        return Verdict::holds(READY, "Registered", format!("{declared} devices are registered as declared"));
    }
    let message = format!("{} of {declared} devices are not as declared; see firstErrors", tally.failed);
    Verdict::fails(READY, &Problem::new("DevicesFailed", message))
}

/// Writes the status if it tells anything new.
pub(super) async fn write_status(
    fleet: &DeviceFleet,
    context: &Context,
    verdicts: &[Verdict],
    mut status: DeviceFleetStatus,
) -> Result<(), Failure> {
    let former = fleet.status.clone().unwrap_or_default();
    status.conditions = status::conditions(fleet, context, verdicts);
    status.observed_generation = Some(status::generation(fleet));
    status.observed_time = former.observed_time.clone();
    if status == former {
        return Ok(());
    }
    status.observed_time = Some(rfc3339(context.clock.now_ms()));
    status::write(fleet, context, &status, &status.conditions).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_config_map_concerns_the_fleets_of_its_namespace_that_name_it() {
        let fleet = |name: &str, namespace: &str, source: serde_json::Value| -> Arc<DeserializeGuard<DeviceFleet>> {
            let fleet = json!({
                "apiVersion": "drover.dev/v1alpha1", "kind": "DeviceFleet", "spec": {"source": source},
                "metadata": {"name": name, "namespace": namespace},
            });
            Arc::new(serde_json::from_value(fleet).expect("a fleet"))
        };
        let table = || json!({"csv": {"configMap": "table", "key": "devices.csv"}});
        let fleets = [
            fleet("a", "home", table()),
            fleet("b", "lab", table()),
            fleet("c", "home", json!({"csv": {"configMap": "other", "key": "devices.csv"}})),
            fleet("d", "home", json!({"names": ["table"]})),
            fleet("e", "home", table()),
            fleet("f", "home", json!({"certificateAuthority": {"configMap": "table"}})),
            fleet("g", "home", json!({"certificateAuthority": {"secretName": "table"}})),
        ];
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "table", "namespace": "home"}})).expect("a ConfigMap");
        let named: Vec<String> = fleets_of(&fleets, &map).into_iter().map(|reference| reference.name).collect();
        assert_eq!(named, ["a", "e", "f"]);
    }
}
