//! Device groups: devices by what is said of them, one group within another.

use drover_types::limits::DEVICE_GROUPS_PER_TENANT_MAX;
use drover_types::{ApiError, ErrorCode, TenantId, subdomain};

use super::group_tree::GroupTree;
use super::{Declared, Domain, Page, PageRequest, checks, not_found};
use crate::object::{Kind, Object, ObjectKey};
use crate::ports::StoreError;

/// Groups read from the store at once where all of a tenant are looked at.
const READ_AT_ONCE: usize = 100;

impl Domain {
    /// Creates or replaces a device group. `invalid_argument` if the group it is within is not there, or is within it.
    pub async fn put_device_group(&self, group: Declared) -> Result<Object, ApiError> {
        subdomain("metadata.name", &group.name)?;
        checks::labels(&group.labels)?;
        let spec = group.spec.device_group();
        spec.check()?;
        let key = ObjectKey::new(Kind::DeviceGroup, &group.tenant, &group.name);
        let _alone = self.writing_device_group.lock().await;
        self.current_or_room(&key, DEVICE_GROUPS_PER_TENANT_MAX, "device groups").await?;
        if spec.parent.is_some() {
            let mut tree = self.group_tree(&group.tenant).await?;
            tree.put(&group.name, spec.parent.as_deref());
            tree.check(&group.name)?;
        }
        self.put(group).await
    }

    /// A device group.
    pub async fn get_device_group(&self, tenant: &TenantId, name: &str) -> Result<Object, ApiError> {
        self.get(ObjectKey::new(Kind::DeviceGroup, tenant, name)).await
    }

    /// Device groups in the order of their names.
    pub async fn list_device_groups(&self, request: &PageRequest) -> Result<Page, ApiError> {
        self.page(Kind::DeviceGroup, request).await
    }

    /// Deletes a device group; its devices stay. `failed_precondition` if another group is within it.
    pub async fn delete_device_group(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let key = ObjectKey::new(Kind::DeviceGroup, tenant, name);
        let _alone = self.writing_device_group.lock().await;
        if self.store.get(&key).await?.is_none() {
            return Err(not_found(&key));
        }
        if let Some(child) = self.group_within(tenant, name).await? {
            let message = format!("group {child} is within {name}: delete it, or put it elsewhere, first");
            let error = ApiError::new(ErrorCode::FailedPrecondition, message);
            return Err(ApiError { field: Some("metadata.name".into()), ..error }.over("no group within it", child));
        }
        self.delete(key).await.map(drop)
    }

    async fn group_tree(&self, tenant: &TenantId) -> Result<GroupTree, StoreError> {
        let mut tree = GroupTree::default();
        let put = |group: &Object| {
            tree.put(&group.meta.name, group.spec.device_group().parent.as_deref());
            None::<()>
        };
        self.first_group(tenant, put).await?;
        Ok(tree)
    }

    /// The name of a group that is within `name`.
    async fn group_within(&self, tenant: &TenantId, name: &str) -> Result<Option<String>, StoreError> {
        let is_within = |group: &Object| group.spec.device_group().parent.as_deref() == Some(name);
        self.first_group(tenant, |group| is_within(group).then(|| group.meta.name.clone())).await
    }

    /// What `found` says of the first group of a tenant of which it says something.
    async fn first_group<T>(
        &self,
        tenant: &TenantId,
        mut found: impl FnMut(&Object) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut after = String::new();
        loop {
            let groups = self.store.page(Kind::DeviceGroup, tenant, &after, READ_AT_ONCE).await?;
            if let Some(it) = groups.iter().find_map(&mut found) {
                return Ok(Some(it));
            }
            match groups.last().filter(|_| groups.len() == READ_AT_ONCE) {
                Some(last) => after.clone_from(&last.meta.name),
                None => return Ok(None),
            }
        }
    }
}
