//! Many devices in one call: for fleets that are declared as one thing.
//!
//! Each device is written by itself, as [`Domain::create_device`] and [`Domain::update_device`] do it; what one call saves is
//! the way there and back. Writes of one call go on at once, so that the store commits them together.

use drover_types::{ApiError, DeviceKey, ErrorCode, TenantId};
use futures::{StreamExt, stream};

use super::{Declared, Domain, checks, not_owned};
use crate::object::ObjectKey;

/// Most devices of one call. With labels and attributes near their limits fewer fit into a message of 4 MiB, which whoever calls
/// has to see to.
pub const DEVICES_MAX: usize = 500;
/// Writes of one call under way at the same time.
const WRITES_AT_ONCE: usize = 64;

/// What became of the devices of a call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Bulk {
    /// How many are as they were wanted.
    pub done: u32,
    /// The others by name, and why, in the order of the call.
    pub refusals: Vec<(String, ApiError)>,
}

impl Domain {
    /// Creates or replaces devices, each with its name and, unless it could not be read, what it is to be.
    pub async fn put_devices(&self, devices: Vec<(String, Result<Declared, ApiError>)>) -> Result<Bulk, ApiError> {
        bounded("devices", devices.len())?;
        let writes = devices.into_iter().map(|(name, device)| async move {
            let outcome = match device {
                Ok(device) => self.put_device(device).await,
                Err(error) => Err(error),
            };
            (name, outcome)
        });
        Ok(Bulk::of(stream::iter(writes).buffered(WRITES_AT_ONCE).collect().await))
    }

    /// Deletes devices that `owner` keeps; those that are not there are as they were wanted.
    pub async fn delete_devices(&self, tenant: &TenantId, owner: &str, names: Vec<String>) -> Result<Bulk, ApiError> {
        bounded("names", names.len())?;
        if owner.is_empty() {
            return Err(ApiError::invalid("owner", "is empty: many are deleted only by who keeps them"));
        }
        let deletions = names.into_iter().map(|name| async move {
            let outcome = self.delete_owned(tenant, owner, &name).await;
            (name, outcome)
        });
        Ok(Bulk::of(stream::iter(deletions).buffered(WRITES_AT_ONCE).collect().await))
    }

    async fn put_device(&self, device: Declared) -> Result<(), ApiError> {
        let key = DeviceKey { tenant: device.tenant.clone(), device: checks::device_name(&device.name)? };
        match self.store.get(&ObjectKey::device(&key)).await? {
            Some(_) => self.update_device(device).await.map(drop),
            None => match self.create_device(device.clone()).await {
                Err(error) if error.code == ErrorCode::AlreadyExists => self.update_device(device).await.map(drop),
                created => created.map(drop),
            },
        }
    }

    async fn delete_owned(&self, tenant: &TenantId, owner: &str, name: &str) -> Result<(), ApiError> {
        let key = DeviceKey { tenant: tenant.clone(), device: checks::device_name(name)? };
        let object_key = ObjectKey::device(&key);
        match self.store.get(&object_key).await? {
            None => Ok(()),
            Some(device) if device.meta.owner == owner => self.delete_device(&key).await.map(drop),
            Some(device) => Err(not_owned(&object_key, owner, &device.meta.owner)),
        }
    }
}

impl Bulk {
    fn of(outcomes: Vec<(String, Result<(), ApiError>)>) -> Self {
        outcomes.into_iter().fold(Self::default(), |mut bulk, (name, outcome)| {
            match outcome {
                Ok(()) => bulk.done += 1,
                Err(error) => bulk.refusals.push((name, error)),
            }
            bulk
        })
    }
}

fn bounded(field: &str, count: usize) -> Result<(), ApiError> {
    if count > DEVICES_MAX {
        return Err(ApiError::invalid(field, "too many devices in one call").over(DEVICES_MAX, count));
    }
    Ok(())
}
