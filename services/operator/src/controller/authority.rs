//! Fleets of a certificate authority: the registry makes their devices when they connect; here the authority is registered,
//! and devices are counted.

use drover_types::object::CertificateAuthoritySpec;
use drover_types::{ApiError, TenantId, subdomain};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::runtime::controller::Action;
use kube::{Api, ResourceExt};

use super::context::Context;
use super::failure::Failure;
use super::fleet::{again, open, owner, write_status};
use super::registered::{Outcome, accepted, refused, register};
use super::uid;
use crate::crd::{AuthoritySource, DeviceFleet, DeviceFleetStatus};
use crate::domain::authority as domain;
use crate::domain::fleet::{self, Tally};
use crate::domain::object::is_ours;
use crate::domain::problem::Problem;
use crate::domain::rule::tenant;

/// The field of the source.
const FIELD: &str = "spec.source.certificateAuthority";

/// Registers the authority and tells how many devices it has registered.
pub async fn apply(fleet: &DeviceFleet, source: &AuthoritySource, context: &Context) -> Result<Action, Failure> {
    let (tenant, owner) = (tenant(fleet)?, owner(fleet, context));
    let (outcome, ends_ms) = match certificate(fleet, source, context).await? {
        Ok(certificate) => {
            let ends_ms = domain::ends_ms(&certificate);
            (put(fleet, context, &tenant, &owner, certificate).await?, ends_ms)
        }
        Err(problem) => (Outcome::Refused(problem), None),
    };
    if let Outcome::Refused(problem) = outcome {
        let former = fleet.status.clone().unwrap_or_default();
        write_status(fleet, context, &refused(&problem), former).await?;
        // A certificate may come or be renewed.
        return Ok(Action::requeue(again(fleet, context)));
    }
    let tally = count(context, &tenant, &owner).await?;
    let verdicts = [accepted(), domain::ready(ends_ms, context.clock.now_ms())];
    let status = DeviceFleetStatus {
        registered: Some(tally.registered),
        connected: Some(tally.connected),
        converged: tally.converged,
        ..DeviceFleetStatus::default()
    };
    write_status(fleet, context, &verdicts, status).await?;
    context.refusals.forget(&uid(fleet));
    Ok(Action::requeue(context.config.status_interval.as_std()))
}

/// Deletes the authority, if it is the fleet's.
pub async fn delete(fleet: &DeviceFleet, tenant: &TenantId, owner: &str, context: &Context) -> Result<(), Failure> {
    let name = fleet.name_any();
    let found = context.registry.certificate_authority(tenant, &name).await?;
    if is_ours(owner, found.as_ref()) {
        context.registry.delete_certificate_authority(tenant, &name).await?;
    }
    Ok(())
}

async fn put(
    fleet: &DeviceFleet,
    context: &Context,
    tenant: &TenantId,
    owner: &str,
    certificate: String,
) -> Result<Outcome<CertificateAuthoritySpec>, Failure> {
    let wanted = fleet::authority(tenant.clone(), owner.to_owned(), fleet.name_any(), &fleet.spec, certificate);
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return Ok(Outcome::Refused(Problem::refused(&error))),
    };
    let found = context.registry.certificate_authority(tenant, &wanted.name).await?;
    let put = async |revision| context.registry.put_certificate_authority(&wanted, revision).await;
    register(fleet, context, &wanted, found, put).await
}

async fn count(context: &Context, tenant: &TenantId, owner: &str) -> Result<Tally, Failure> {
    let open = open(tenant, context, |name| Some(name.to_owned())).await;
    let (mut tally, mut after) = (Tally::default(), String::new());
    loop {
        let page = context.registry.devices(tenant, &after).await?;
        tally.count(owner, &page.devices, open.as_ref());
        after = page.next;
        if after.is_empty() {
            return Ok(tally);
        }
    }
}

/// The authority's certificate, or why it cannot be known.
async fn certificate(
    fleet: &DeviceFleet,
    source: &AuthoritySource,
    context: &Context,
) -> Result<Result<String, Problem>, Failure> {
    let (kind, missing, field, name) = match (&source.secret_name, &source.config_map) {
        (Some(name), None) => ("Secret", "SecretMissing", "secretName", name),
        (None, Some(name)) => ("ConfigMap", "ConfigMapMissing", "configMap", name),
        _ => {
            let error = ApiError::invalid(FIELD, "the certificate is in a Secret or in a ConfigMap");
            return Ok(Err(Problem::refused(&error)));
        }
    };
    if let Err(error) = subdomain(&format!("{FIELD}.{field}"), name) {
        return Ok(Err(Problem::refused(&error)));
    }
    let namespace = fleet.namespace().unwrap_or_default();
    let found = if source.secret_name.is_some() {
        let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
        let bytes = api.get_opt(name).await?.and_then(|secret| secret.data?.remove(&source.key));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
    } else {
        let api = Api::<ConfigMap>::namespaced(context.client.clone(), &namespace);
        api.get_opt(name).await?.and_then(|map| map.data?.remove(&source.key))
    };
    let message = || format!("{kind} {name} with key {} does not exist", source.key);
    Ok(found.ok_or_else(|| Problem::new(missing, message())))
}
