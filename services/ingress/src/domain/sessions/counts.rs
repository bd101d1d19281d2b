//! How many connections devices and tenants have. Nothing is counted where nobody has set a limit.

use std::collections::HashMap;

use drover_types::{DeviceId, TenantId};

use super::{AttachError, Inner, Key, Sessions, State};
use crate::domain::quotas::QuotaOf;

/// Most connections of one device and of one tenant; 0: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionQuotas {
    pub device: u32,
    pub tenant: u32,
}

/// Those there are.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub quotas: ConnectionQuotas,
    devices: HashMap<(TenantId, DeviceId), u32>,
    tenants: HashMap<TenantId, u32>,
}

impl Counts {
    /// Nobody is connected any more; the limits stay.
    pub fn clear(&mut self) {
        self.devices.clear();
        self.tenants.clear();
    }

    /// Whether there may be one more, beside those there are but for `replaced`.
    pub fn check(&self, tenant: &TenantId, device: &DeviceId, replaced: Option<&DeviceId>) -> Result<(), AttachError> {
        let ConnectionQuotas { device: of_device, tenant: of_tenant } = self.quotas;
        let same = replaced == Some(device);
        let devices = if of_device == 0 || same { None } else { self.devices.get(&(tenant.clone(), device.clone())) };
        if devices.is_some_and(|count| *count >= of_device) {
            return Err(AttachError::TooManyConnections { of: QuotaOf::Device, limit: of_device });
        }
        let tenants = if replaced.is_some() { None } else { self.tenants.get(tenant) };
        if of_tenant > 0 && tenants.is_some_and(|count| *count >= of_tenant) {
            return Err(AttachError::TooManyConnections { of: QuotaOf::Tenant, limit: of_tenant });
        }
        Ok(())
    }

    /// A connection more.
    pub fn add(&mut self, tenant: &TenantId, device: &DeviceId) {
        if self.quotas.device > 0 {
            *self.devices.entry((tenant.clone(), device.clone())).or_default() += 1;
        }
        if self.quotas.tenant > 0 {
            *self.tenants.entry(tenant.clone()).or_default() += 1;
        }
    }

    /// A connection less.
    pub fn remove(&mut self, tenant: &TenantId, device: &DeviceId) {
        if self.quotas.device > 0 {
            less(&mut self.devices, &(tenant.clone(), device.clone()));
        }
        if self.quotas.tenant > 0 {
            less(&mut self.tenants, tenant);
        }
    }
}

impl Sessions {
    /// Whether there may be another connection of this device and of its tenant; one of the same client here gives its place
    /// up. To be asked before the client's session is taken, and again when it is here.
    pub fn check_connections(&self, key: &Key, device: &DeviceId) -> Result<(), AttachError> {
        self.lock().check_connections(key, device)
    }
}

impl Inner {
    /// As [`Sessions::check_connections`].
    pub(super) fn check_connections(&self, key: &Key, device: &DeviceId) -> Result<(), AttachError> {
        let live = self.entries.get(key).filter(|entry| matches!(entry.state, State::Live { .. }));
        self.counts.check(&key.0, device, live.map(|entry| entry.device()))
    }
}

fn less<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    let Some(count) = counts.get_mut(key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(key);
    }
}
