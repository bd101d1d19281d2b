//! Device types: what devices send. Devices may name types that are not there.

use drover_types::limits::DEVICE_TYPES_PER_TENANT_MAX;
use drover_types::{ApiError, TenantId, subdomain};

use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Kind, Object, ObjectKey};

impl Domain {
    /// Creates or replaces a device type.
    pub async fn put_device_type(&self, device_type: Declared) -> Result<Object, ApiError> {
        subdomain("metadata.name", &device_type.name)?;
        checks::labels(&device_type.labels)?;
        device_type.spec.device_type().check()?;
        let key = ObjectKey::new(Kind::DeviceType, &device_type.tenant, &device_type.name);
        let _alone = self.writing_device_type.lock().await;
        self.current_or_room(&key, DEVICE_TYPES_PER_TENANT_MAX, "device types").await?;
        self.put(device_type).await
    }

    /// A device type.
    pub async fn get_device_type(&self, tenant: &TenantId, name: &str) -> Result<Object, ApiError> {
        self.get(ObjectKey::new(Kind::DeviceType, tenant, name)).await
    }

    /// Device types in the order of their names.
    pub async fn list_device_types(&self, request: &PageRequest) -> Result<Page, ApiError> {
        self.page_of_large(Kind::DeviceType, request).await
    }

    /// Deletes a device type. Devices that name it stay as they are.
    pub async fn delete_device_type(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        self.delete(ObjectKey::new(Kind::DeviceType, tenant, name)).await.map(drop)
    }
}
