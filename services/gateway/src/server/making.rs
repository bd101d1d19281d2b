//! A new device and its first token: two calls of the registry, of which the second may fail. Who asks for the same again
//! then gets the token.
//!
//! A device that has credentials gets none here: it would be a way in that nobody was told of. So of requests that make the
//! same device one goes on at a time, in this process.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use drover_proto::Field;
use drover_proto::registry::v1::{CreateDeviceRequest, GetDeviceRequest, IssueTokenResponse, ListCredentialsRequest};
use drover_proto::types::v1 as wire;
use drover_types::object::DeviceSpec;
use drover_types::{ApiError, DeviceKey, ErrorCode};

use super::{Api, credentials};

/// How long after a device was made its first token may still be asked for by making it again, in milliseconds.
const JUST_MADE_MS: u64 = 10 * 60 * 1000;

/// The devices that requests of this moment make; no more than there are connections.
#[derive(Default)]
pub struct Making(Mutex<HashSet<DeviceKey>>);

/// One that is made now, until this is dropped.
struct Begun<'a>(&'a Making, &'a DeviceKey);

impl Making {
    fn begin<'a>(&'a self, key: &'a DeviceKey) -> Result<Begun<'a>, ApiError> {
        if self.lock().insert(key.clone()) {
            return Ok(Begun(self, key));
        }
        Err(ApiError::new(ErrorCode::Aborted, format!("device {key} is being made by another request; try again")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<DeviceKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(self.1);
    }
}

/// Makes `device`, which is `key`'s, and issues its first token.
///
/// `already_exists` if there is one of its name, unless such a request has left it behind: declared alike, nobody's, made
/// within the last ten minutes, and without credentials. `aborted` while another request makes it. After another error of
/// the registry the same request may be made again.
pub async fn device(
    api: &Api,
    key: &DeviceKey,
    device: wire::Device,
) -> Result<(wire::Device, IssueTokenResponse), ApiError> {
    let _begun = api.making.begin(key)?;
    let request = CreateDeviceRequest { device: Some(device.clone()) };
    let made = match api.registry.call(async |mut client| client.create_device(request).await).await {
        Ok(created) => created.device.required("device")?,
        Err(error) if error.code == ErrorCode::AlreadyExists => left_behind(api, key, &device).await?.ok_or(error)?,
        Err(error) => return Err(error),
    };
    let issued = credentials::issue_token(api, &key.tenant, &key.device, 0).await?;
    Ok((made, issued))
}

/// The device of this name, if all it lacks is its first token.
async fn left_behind(api: &Api, key: &DeviceKey, asked: &wire::Device) -> Result<Option<wire::Device>, ApiError> {
    let (tenant, device) = (key.tenant.to_string(), key.device.to_string());
    let request = GetDeviceRequest { tenant: tenant.clone(), name: device.clone() };
    let found = api.registry.call(async |mut client| client.get_device(request).await).await?;
    let found = found.device.required("device")?;
    if !is_new(&found, asked, api.clock.now_ms()) {
        return Ok(None);
    }
    let request = ListCredentialsRequest { tenant, device };
    let listed = api.registry.call(async |mut client| client.list_credentials(request).await).await?;
    Ok(listed.credentials.is_empty().then_some(found))
}

/// Whether a device is what was asked for, made just now and since then left alone.
fn is_new(found: &wire::Device, asked: &wire::Device, now_ms: u64) -> bool {
    let (Some(meta), Some(asked_meta)) = (&found.meta, &asked.meta) else { return false };
    let alike = DeviceSpec::from(found) == DeviceSpec::from(asked) && meta.labels == asked_meta.labels;
    alike && meta.owner.is_empty() && now_ms.saturating_sub(meta.created_ms) <= JUST_MADE_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_types::{DeviceId, TenantId};

    #[test]
    fn one_request_at_a_time_makes_a_device() {
        let making = Making::default();
        let [a, b] = ["a", "b"]
            .map(|name| DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new(name).expect("valid") });
        let begun = making.begin(&a).expect("the first");
        assert_eq!(making.begin(&a).err().map(|error| error.code), Some(ErrorCode::Aborted));
        assert!(making.begin(&b).is_ok());
        drop(begun);
        assert!(making.begin(&a).is_ok());
    }

    #[test]
    fn a_device_is_new_for_ten_minutes_if_it_is_as_asked_for_and_nobodys() {
        let device = |meta: wire::Meta| wire::Device::of(meta, DeviceSpec::default());
        let asked = device(wire::Meta { name: "d".into(), ..wire::Meta::default() });
        let made = wire::Meta { name: "d".into(), created_ms: 1_000, generation: 1, ..wire::Meta::default() };
        let found = device(made.clone());
        assert!(is_new(&found, &asked, 1_000 + JUST_MADE_MS) && is_new(&found, &asked, 0));
        assert!(!is_new(&found, &asked, 1_001 + JUST_MADE_MS));
        assert!(!is_new(&wire::Device { enabled: false, ..found.clone() }, &asked, 1_000));
        assert!(!is_new(&device(wire::Meta { owner: "kubernetes".into(), ..made }), &asked, 1_000));
        assert!(!is_new(&wire::Device { meta: None, ..found }, &asked, 1_000));
    }
}
