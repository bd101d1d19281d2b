//! Devices: who there is.

use drover_types::{ApiError, DeviceKey, ErrorCode};

use super::members::Choice;
use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Kind, Object, ObjectKey};
use crate::ports::Whose;
use drover_bus::partition_of;
use drover_types::object::DEFAULT_POLICY;

/// Whether a device is connected, as the event log tells it; over all its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    pub ever_seen: bool,
    pub connected: bool,
    /// Of the last connect or disconnect, milliseconds since the Unix epoch.
    pub changed_ms: u64,
    pub epoch: u64,
}

/// An object, and the names of the ingress nodes that may not know yet what was taken from it.
#[derive(Debug)]
pub struct Revoked<T = Object> {
    pub object: T,
    pub unconfirmed_nodes: Vec<String>,
}

impl Domain {
    /// Registers a device.
    pub async fn create_device(&self, device: Declared) -> Result<Object, ApiError> {
        self.check_device(&device).await?;
        self.create(device).await
    }

    /// Changes a device. A disabled one is disconnected before this returns, by every node that confirms.
    pub async fn update_device(&self, device: Declared) -> Result<Revoked, ApiError> {
        let key = self.check_device(&device).await?;
        let current = self.get(ObjectKey::device(&key)).await?;
        let object = self.replace(device, current).await?;
        let unconfirmed_nodes = if is_enabled(&object) { Vec::new() } else { self.revoke(&key, Whose::All).await };
        Ok(Revoked { object, unconfirmed_nodes })
    }

    /// A device and whether it is connected.
    pub async fn get_device(&self, key: &DeviceKey) -> Result<(Object, Presence), ApiError> {
        let device = self.get(ObjectKey::device(key)).await?;
        Ok((device, self.presence(key).await?))
    }

    /// Devices in the order of their names, each with its presence: all, or those of a choice.
    pub async fn list_devices(
        &self,
        request: &PageRequest,
        choice: &Choice,
    ) -> Result<Page<(Object, Presence)>, ApiError> {
        let Page { items, next } = match choice.is_all() {
            true => self.page(Kind::Device, request).await?,
            false => self.chosen(request, choice).await?,
        };
        let mut devices = Vec::with_capacity(items.len());
        for object in items {
            let device = checks::device_name(&object.meta.name)?;
            let presence = self.presence(&DeviceKey { tenant: object.meta.tenant.clone(), device }).await?;
            devices.push((object, presence));
        }
        Ok(Page { items: devices, next })
    }

    /// Revokes a device's credentials, then deletes it. Answers the nodes that did not confirm.
    ///
    /// A failure on the way leaves a device with fewer credentials, which may be deleted again.
    pub async fn delete_device(&self, key: &DeviceKey) -> Result<Vec<String>, ApiError> {
        self.get(ObjectKey::device(key)).await?;
        self.delete_credentials(key).await?;
        self.delete(ObjectKey::device(key)).await?;
        // A credential issued in between belongs to nobody now; a later device of this name must not inherit it.
        self.delete_credentials(key).await?;
        Ok(self.revoke(key, Whose::All).await)
    }

    /// Tells the ingress nodes; answers those that did not confirm.
    pub(super) async fn revoke(&self, device: &DeviceKey, whose: Whose<'_>) -> Vec<String> {
        let unconfirmed = self.nodes.revoke(device, whose).await;
        self.telemetry.revoked(device, unconfirmed.len());
        unconfirmed
    }

    pub(super) async fn check_device(&self, device: &Declared) -> Result<DeviceKey, ApiError> {
        let id = checks::device_name(&device.name)?;
        checks::labels(&device.labels)?;
        let spec = device.spec.device();
        checks::device(spec)?;
        for name in spec.policies.iter().filter(|name| *name != DEFAULT_POLICY) {
            let key = ObjectKey::new(Kind::Policy, &device.tenant, name);
            if self.store.get(&key).await?.is_none() {
                let message = format!("{key} does not exist");
                return Err(ApiError::invalid("spec.policies", message).over("existing policies", name));
            }
        }
        Ok(DeviceKey { tenant: device.tenant.clone(), device: id })
    }

    async fn presence(&self, key: &DeviceKey) -> Result<Presence, ApiError> {
        let partition = partition_of(key.to_string().as_bytes(), self.settings.partitions);
        let sessions = self.store.presence_of(partition, key).await?;
        Ok(sessions.iter().fold(Presence::default(), |presence, (_, session)| Presence {
            ever_seen: true,
            connected: presence.connected || session.connected,
            changed_ms: presence.changed_ms.max(session.changed_ms),
            epoch: presence.epoch.max(session.epoch),
        }))
    }
}

/// Whether a device object is one that may connect.
pub(super) fn is_enabled(device: &Object) -> bool {
    device.spec.device().enabled
}

/// The error of a device that may not connect.
pub(super) fn disabled() -> ApiError {
    ApiError::new(ErrorCode::PermissionDenied, "the device is disabled")
}
