//! Credentials of a device and the Secrets that hold them: reads what is there, and carries a plan out.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt};

use super::context::Context;
use super::failure::Failure;
use super::{MANAGER, uid};
use crate::crd::Device;
use crate::domain::credentials::{self, Issue, Plan, WantedCredential};
use crate::domain::device::DeclaredDevice;
use crate::domain::problem::{Problem, passes};
use crate::domain::secret::{self, Seen};

/// What became of a device's credentials.
#[derive(Debug, Default)]
pub struct Furnished {
    /// Why not all of them are as declared.
    pub problem: Option<Problem>,
    /// When the next one is to be renewed, milliseconds since the Unix epoch; `None`: nothing is known of an end.
    pub renew_at_ms: Option<u64>,
}

/// Brings the credentials and their Secrets to what is declared. Neither is looked for of a device that is the first of its
/// name: a Secret that exists nevertheless is refused by the API server, and found by the next turn.
pub async fn furnish(
    device: &Device,
    context: &Context,
    declared: &DeclaredDevice,
    is_first: bool,
) -> Result<Furnished, Failure> {
    let api = Api::<Secret>::namespaced(context.client.clone(), declared.key.tenant.as_str());
    let (seen, known) = if is_first {
        (declared.credentials.iter().map(|wanted| (wanted.clone(), Seen::Nothing)).collect::<Vec<_>>(), Vec::new())
    } else {
        let seen = read(&api, device, &declared.credentials).await?;
        (seen, context.registry.credentials(&declared.key).await?)
    };
    let plan = credentials::plan(&seen, &known, &context.config.owner, context.clock.now_ms());
    let Plan { issue, revoke, refused, renew_at_ms } = plan;
    let mut problem = refused;
    for step in &issue {
        if let Some(refused) = carry_out(&api, device, context, declared, step).await? {
            problem.get_or_insert(refused);
        }
    }
    // The device may still use what a Secret holds for which there is no other yet.
    if problem.is_none() {
        for id in &revoke {
            context.registry.revoke(&declared.key.tenant, id).await?;
        }
    }
    // What was just issued has its whole life before it, or is looked at with the next turn.
    Ok(Furnished { problem, renew_at_ms: renew_at_ms.filter(|_| issue.is_empty()) })
}

async fn read(
    api: &Api<Secret>,
    device: &Device,
    wanted: &[WantedCredential],
) -> Result<Vec<(WantedCredential, Seen)>, Failure> {
    let mut seen = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let secret = api.get_opt(&wanted.secret).await?;
        seen.push((wanted.clone(), secret::seen(secret.as_ref(), &uid(device), wanted.kind)));
    }
    Ok(seen)
}

/// Issues a credential and writes its Secret. If the Secret cannot be written, the credential is revoked at once: however
/// often that fails, no live ones pile up. Had it been written after all, the next turn finds a credential in it that the
/// registry does not know, and makes another.
async fn carry_out(
    api: &Api<Secret>,
    device: &Device,
    context: &Context,
    declared: &DeclaredDevice,
    step: &Issue,
) -> Result<Option<Problem>, Failure> {
    let Issue { wanted, previous, resource_version, is_renewal } = step;
    let owner = &context.config.owner;
    let reference = device.controller_owner_ref(&()).ok_or(Failure::Object)?;
    let issued = match context.registry.issue(&declared.key, wanted.kind, wanted.duration_s, owner).await {
        Ok(issued) => issued,
        Err(error) if passes(&error) => return Err(error.into()),
        Err(error) => return Ok(Some(Problem::refused(&error))),
    };
    let username = declared.key.to_string();
    let secret = secret::make(&wanted.secret, reference, &username, &issued, previous.as_deref());
    if let Err(failure) = write(api, secret, resource_version.as_deref()).await {
        let id = &issued.credential.id;
        if let Err(error) = context.registry.revoke(&declared.key.tenant, id).await {
            tracing::warn!(device = username, credential = id, %error, "in no Secret and not revoked; a later turn does");
        }
        return match failure.refusal() {
            Some(message) => Ok(Some(not_written(&wanted.secret, message))),
            None => Err(failure),
        };
    }
    context.telemetry.secret_written();
    if *is_renewal {
        let note = format!("Secret {} has a new certificate; the former one holds until its own end", wanted.secret);
        context.events.normal(device, "Renewed", note).await;
    }
    Ok(None)
}

/// A quota, a right that is missing, a Secret that was made immutable.
fn not_written(name: &str, message: &str) -> Problem {
    let message = format!("Secret {name} cannot be written: {message}; mend that, or choose another secretName");
    Problem::new("SecretRefused", message)
}

/// Creates a Secret, or writes over the one of this version.
async fn write(api: &Api<Secret>, mut secret: Secret, version: Option<&str>) -> Result<(), Failure> {
    match version {
        None => {
            let create = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
            api.create(&create, &secret).await?;
        }
        Some(version) => {
            secret.metadata.resource_version = Some(version.to_owned());
            let apply = PatchParams::apply(MANAGER).force();
            api.patch(&secret.name_any(), &apply, &Patch::Apply(&secret)).await?;
        }
    }
    Ok(())
}
