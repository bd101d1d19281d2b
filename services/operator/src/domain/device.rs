//! Device objects: what they declare, and when their status is due.

use std::collections::BTreeSet;

use drover_types::limits::SHADOW_STATE_BYTES_MAX;
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, DeviceId, DeviceKey, TenantId, subdomain};
use serde_json::{Map, Value};

use super::condition::{self, CONNECTED, Verdict};
use super::credentials::WantedCredential;
use super::problem::Problem;
use super::{span, time};
use crate::crd::{Condition, Device, DeviceCredential, DevicePhase, DeviceStatus};
use crate::ports::{CredentialKind, Presence, Wanted};

/// How long a certificate holds when nobody says, in seconds: one year.
const CERTIFICATE_SECONDS_DEFAULT: u64 = 365 * 24 * 3600;
/// Shortest lifetime of a certificate, in seconds: below it, renewal would be all that goes on.
const CERTIFICATE_SECONDS_MIN: u64 = 3600;
/// Longest lifetime of a certificate, in seconds: ten years, as the registry has it.
const CERTIFICATE_SECONDS_MAX: u64 = 3_650 * 24 * 3600;

/// What a Device declares.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredDevice {
    pub key: DeviceKey,
    pub wanted: Wanted<DeviceSpec>,
    pub credentials: Vec<WantedCredential>,
    /// Empty: nothing is wanted of its state.
    pub desired: Map<String, Value>,
}

/// The tenant and the id of a device.
pub fn key(device: &Device) -> Result<DeviceKey, ApiError> {
    let namespace = device.metadata.namespace.as_deref().unwrap_or_default();
    let name = device.metadata.name.as_deref().unwrap_or_default();
    let tenant = TenantId::new(namespace).map_err(|e| ApiError::invalid("metadata.namespace", e.to_string()))?;
    let device = DeviceId::new(name).map_err(|e| ApiError::invalid("metadata.name", e.to_string()))?;
    Ok(DeviceKey { tenant, device })
}

/// Checks what a Device says beyond its schema; the registry checks the rest.
pub fn declared(device: &Device, owner: &str) -> Result<DeclaredDevice, ApiError> {
    let key = key(device)?;
    let spec = DeviceSpec {
        // The registry has no empty type: it would be drift for ever.
        device_type: device.spec.device_type.clone().filter(|name| !name.is_empty()),
        enabled: device.spec.enabled,
        attributes: device.spec.attributes.clone(),
        policies: device.spec.policies.clone(),
    };
    let wanted = Wanted {
        tenant: key.tenant.clone(),
        name: key.device.to_string(),
        labels: device.metadata.labels.clone().unwrap_or_default(),
        spec,
        owner: owner.to_owned(),
    };
    Ok(DeclaredDevice {
        credentials: credentials(&device.spec.credentials)?,
        desired: desired(device.spec.desired.as_ref())?,
        key,
        wanted,
    })
}

fn credentials(declared: &[DeviceCredential]) -> Result<Vec<WantedCredential>, ApiError> {
    let mut names = BTreeSet::new();
    let mut wanted = Vec::with_capacity(declared.len());
    for (i, credential) in declared.iter().enumerate() {
        let credential = self::credential(&format!("spec.credentials[{i}]"), credential)?;
        let field = format!("spec.credentials[{i}].secretName");
        subdomain(&field, &credential.secret)?;
        if !names.insert(credential.secret.clone()) {
            return Err(
                ApiError::invalid(field, "two credentials cannot be in one Secret").over("once", credential.secret)
            );
        }
        wanted.push(credential);
    }
    Ok(wanted)
}

fn credential(field: &str, declared: &DeviceCredential) -> Result<WantedCredential, ApiError> {
    match (&declared.token, &declared.certificate) {
        (Some(token), None) => {
            Ok(WantedCredential { secret: token.secret_name.clone(), kind: CredentialKind::Token, duration_s: 0 })
        }
        (None, Some(certificate)) => {
            let field = format!("{field}.certificate.duration");
            let duration = certificate.duration.as_deref().map(|text| span::seconds(&field, text)).transpose()?;
            let duration_s = duration.unwrap_or(CERTIFICATE_SECONDS_DEFAULT);
            if duration_s < CERTIFICATE_SECONDS_MIN {
                return Err(
                    ApiError::invalid(field, "is too short, in seconds").over(CERTIFICATE_SECONDS_MIN, duration_s)
                );
            }
            if duration_s > CERTIFICATE_SECONDS_MAX {
                return Err(
                    ApiError::invalid(field, "is too long, in seconds").over(CERTIFICATE_SECONDS_MAX, duration_s)
                );
            }
            let secret = certificate.secret_name.clone();
            Ok(WantedCredential { secret, kind: CredentialKind::Certificate, duration_s })
        }
        (None, None) | (Some(_), Some(_)) => {
            Err(ApiError::invalid(field, "a credential has exactly one of token, certificate"))
        }
    }
}

fn desired(desired: Option<&Value>) -> Result<Map<String, Value>, ApiError> {
    let Some(desired) = desired else { return Ok(Map::new()) };
    let bytes = desired.to_string().len();
    if bytes > SHADOW_STATE_BYTES_MAX {
        return Err(ApiError::invalid("spec.desired", "is too large, in bytes").over(SHADOW_STATE_BYTES_MAX, bytes));
    }
    desired.as_object().cloned().ok_or_else(|| ApiError::invalid("spec.desired", "is no object"))
}

/// Where the device stands.
pub fn phase(enabled: bool, presence: Presence) -> DevicePhase {
    match presence {
        _ if !enabled => DevicePhase::Disabled,
        Presence { connected: true, .. } => DevicePhase::Connected,
        Presence { ever_seen: true, .. } => DevicePhase::Disconnected,
        Presence { .. } => DevicePhase::NeverSeen,
    }
}

/// Whether the device is connected, as a condition tells it.
pub fn connected(presence: Presence) -> Verdict {
    match presence {
        Presence { connected: true, .. } => Verdict::holds(CONNECTED, "Connected", "it is connected"),
        Presence { ever_seen: true, .. } => {
            Verdict::fails(CONNECTED, &Problem::new("Disconnected", "it has been connected, and is not now"))
        }
        Presence { .. } => Verdict::fails(CONNECTED, &Problem::new("NeverSeen", "it has never been connected")),
    }
}

/// When a status is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// What was declared has had its effect: at once.
    Now,
    /// A phase or numbers have changed, and the last write is long enough ago: under the common limit of writes.
    InTurn,
    /// A phase or numbers have changed, which may be told in this many milliseconds.
    InMs(u64),
    Never,
}

/// Whether `status` is to take the place of `former`: at once if it speaks of the spec, for a mere change of phase not
/// before `interval_ms` after the last time, and for nothing else.
pub fn due(former: Option<&DeviceStatus>, status: &DeviceStatus, interval_ms: u64, now_ms: u64) -> Due {
    let Some(former) = former else { return Due::Now };
    let is_of_spec = |condition: &&Condition| condition.kind != CONNECTED;
    let of_spec = former.conditions.iter().filter(is_of_spec).eq(status.conditions.iter().filter(is_of_spec));
    if !of_spec || former.observed_generation != status.observed_generation {
        return Due::Now;
    }
    let said = |status: &DeviceStatus| condition::find(&status.conditions, CONNECTED).map(|c| c.status.clone());
    if former.phase == status.phase && said(former) == said(status) {
        return Due::Never;
    }
    let written_ms = former.observed_time.as_deref().and_then(time::milliseconds).unwrap_or(0);
    match (written_ms + interval_ms).saturating_sub(now_ms) {
        0 => Due::InTurn,
        // A clock that was set back must not make a device wait for longer than it would have.
        wait_ms => Due::InMs(wait_ms.min(interval_ms)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(spec: Value) -> Device {
        let metadata = json!({"name": "thermo-1", "namespace": "home", "labels": {"room": "kitchen"}});
        let object = json!({
            "apiVersion": "devices.drover.dev/v1alpha1", "kind": "Device", "metadata": metadata, "spec": spec,
        });
        serde_json::from_value(object).expect("a Device")
    }

    #[test]
    fn a_device_declares_an_object_credentials_and_a_wanted_state() {
        let spec = json!({
            "type": "thermostat", "attributes": {"serial": "A-17"}, "desired": {"targetTemperature": 21},
            "credentials": [
                {"token": {"secretName": "t"}},
                {"certificate": {"secretName": "c", "duration": "48h"}},
                {"certificate": {"secretName": "d"}},
            ],
        });
        let declared = declared(&device(spec), "kubernetes").expect("valid");
        assert_eq!(declared.key.to_string(), "home/thermo-1");
        assert_eq!(declared.wanted.labels["room"], "kitchen");
        assert_eq!((declared.wanted.spec.enabled, declared.wanted.spec.policies), (true, vec!["default".to_owned()]));
        let durations: Vec<u64> = declared.credentials.iter().map(|credential| credential.duration_s).collect();
        assert_eq!(durations, [0, 48 * 3600, CERTIFICATE_SECONDS_DEFAULT]);
        assert_eq!(declared.desired["targetTemperature"], 21);
    }

    #[test]
    fn what_a_schema_cannot_say_is_refused_by_field() {
        let certificate = |duration: &str| json!({"certificate": {"secretName": "c", "duration": duration}});
        for (credentials, field) in [
            (json!([certificate("59m59s")]), "spec.credentials[0].certificate.duration"),
            (json!([certificate("87601h")]), "spec.credentials[0].certificate.duration"),
            (json!([{"token": {"secretName": "s"}}, {"token": {"secretName": "s"}}]), "spec.credentials[1].secretName"),
            (json!([{"token": {"secretName": "../../lab/secrets/s"}}]), "spec.credentials[0].secretName"),
            (json!([{}]), "spec.credentials[0]"),
        ] {
            let refused = declared(&device(json!({"credentials": credentials})), "k").expect_err(field);
            assert_eq!(refused.field.as_deref(), Some(field));
        }
        let large = json!({"desired": {"a": "x".repeat(SHADOW_STATE_BYTES_MAX)}});
        let refused = declared(&device(large), "k").expect_err("too large");
        assert_eq!(refused.limit, Some(SHADOW_STATE_BYTES_MAX.to_string()));
        assert_eq!(declared(&device(json!({"type": ""})), "k").expect("valid").wanted.spec.device_type, None);
        let mut long = device(json!({}));
        long.metadata.name = Some("d".repeat(129));
        assert_eq!(declared(&long, "k").expect_err("long").field.as_deref(), Some("metadata.name"));
    }

    #[test]
    fn a_status_is_due_at_once_for_the_spec_and_in_ten_minutes_for_the_phase() {
        let status = |phase, generation, at_ms| DeviceStatus {
            phase: Some(phase),
            observed_generation: Some(generation),
            observed_time: Some(time::rfc3339(at_ms)),
            ..DeviceStatus::default()
        };
        let (start, interval) = (1_700_000_000_000, 600_000);
        let former = status(DevicePhase::NeverSeen, 1, start);
        let connected = status(DevicePhase::Connected, 1, start);
        assert_eq!(due(None, &connected, interval, start), Due::Now);
        assert_eq!(due(Some(&former), &status(DevicePhase::NeverSeen, 2, start), interval, start), Due::Now);
        assert_eq!(due(Some(&former), &connected, interval, start + 1_000), Due::InMs(599_000));
        assert_eq!(due(Some(&former), &connected, interval, start + interval), Due::InTurn);
        assert_eq!(due(Some(&former), &connected, interval, start - 3_600_000), Due::InMs(interval));
        let later = status(DevicePhase::NeverSeen, 1, start + interval);
        assert_eq!(due(Some(&former), &later, interval, start + interval), Due::Never);
        // A disabled device stays disabled when it has been disconnected, and is told to be so nevertheless.
        let with = |presence, at_ms| {
            let conditions = condition::conditions(&[], &[super::connected(presence)], 1, "t");
            DeviceStatus { conditions, ..status(DevicePhase::Disabled, 1, at_ms) }
        };
        let up = with(Presence { ever_seen: true, connected: true, changed_ms: 0 }, start);
        let down = with(Presence { ever_seen: true, connected: false, changed_ms: 0 }, start);
        assert_eq!(due(Some(&up), &up, interval, start + interval), Due::Never);
        assert_eq!(due(Some(&up), &down, interval, start + 1_000), Due::InMs(599_000));
    }

    #[test]
    fn a_phase_tells_where_the_device_stands() {
        let presence = |ever_seen, connected| Presence { ever_seen, connected, changed_ms: 0 };
        assert_eq!(phase(true, presence(false, false)), DevicePhase::NeverSeen);
        assert_eq!(phase(true, presence(true, true)), DevicePhase::Connected);
        assert_eq!(phase(true, presence(true, false)), DevicePhase::Disconnected);
        assert_eq!(phase(false, presence(true, true)), DevicePhase::Disabled);
    }
}
