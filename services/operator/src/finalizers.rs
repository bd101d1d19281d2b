//! Taking the operator's finalizer off objects: for when no operator is there that would, or they, and the namespaces around
//! them, could not be deleted any more. What they stand for stays in the registry.

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::controller::{FINALIZER, Kind};
use crate::crd::{Device, DeviceFleet, Function, Policy, Rule};

/// Objects of one page of a list; of each only its metadata is read.
const PAGE_SIZE: u32 = 500;
/// Objects written at the same time.
const WRITES_AT_ONCE: usize = 16;
/// How often one object is written that others change at the same time.
const TRIES_MAX: u32 = 5;

/// Why some objects still have the finalizer. Those before it in the list have lost theirs.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    #[error("{kind} {namespace}/{name} was changed by others at each of {TRIES_MAX} tries; run it again")]
    Contended { kind: &'static str, namespace: String, name: String },
}

/// Takes the finalizer off all objects of these namespaces, of all where none is named; answers how many had it. An operator
/// that still runs puts it on again.
pub async fn remove(client: &Client, namespaces: &[String]) -> Result<usize, RemoveError> {
    let all = namespaces.is_empty().then_some(None);
    let mut removed = 0;
    for namespace in all.into_iter().chain(namespaces.iter().map(|name| Some(name.as_str()))) {
        removed += of_kind::<Device>(client, namespace).await?;
        removed += of_kind::<DeviceFleet>(client, namespace).await?;
        removed += of_kind::<Function>(client, namespace).await?;
        removed += of_kind::<Policy>(client, namespace).await?;
        removed += of_kind::<Rule>(client, namespace).await?;
    }
    Ok(removed)
}

async fn of_kind<K: Kind>(client: &Client, namespace: Option<&str>) -> Result<usize, RemoveError> {
    let api = match namespace {
        Some(namespace) => Api::<K>::namespaced(client.clone(), namespace),
        None => Api::<K>::all(client.clone()),
    };
    let (mut removed, mut page) = (0, ListParams::default().limit(PAGE_SIZE));
    loop {
        let list = match api.list_metadata(&page).await {
            Ok(list) => list,
            // Its CRD is not there, so no object is.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(removed),
            Err(error) => return Err(error.into()),
        };
        let held = list.items.into_iter().map(|object| object.metadata).filter(is_held);
        let writes = stream::iter(held).map(|metadata| let_go::<K>(client, metadata));
        let mut writes = writes.buffer_unordered(WRITES_AT_ONCE);
        while let Some(()) = writes.try_next().await? {
            removed += 1;
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(removed),
        }
    }
}

fn is_held(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// What of the version that was read is written over it: others' finalizers alone.
fn without(metadata: &ObjectMeta) -> Value {
    let others: Vec<&String> = metadata.finalizers.iter().flatten().filter(|one| *one != FINALIZER).collect();
    json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": others}})
}

/// Takes the finalizer off one object; one that is gone has none.
async fn let_go<K: Kind>(client: &Client, mut metadata: ObjectMeta) -> Result<(), RemoveError> {
    let namespace = metadata.namespace.take().unwrap_or_default();
    let name = metadata.name.take().unwrap_or_default();
    let api = Api::<PartialObjectMeta<K>>::namespaced(client.clone(), &namespace);
    for _ in 0..TRIES_MAX {
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(without(&metadata))).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
        match api.get_opt(&name).await? {
            Some(object) if is_held(&object.metadata) => metadata = object.metadata,
            Some(_) | None => return Ok(()),
        }
    }
    Err(RemoveError::Contended { kind: K::NAME, namespace, name })
}
