//! Which devices are meant: by their labels, by their type, by a group they are in.
//!
//! Nothing keeps who is in which group: devices are looked at one after the other, a bounded number in a call.

use drover_types::limits::GROUP_DEPTH_MAX;
use drover_types::object::{DeviceGroupSpec, LabelSelector};
use drover_types::{ApiError, ErrorCode, TenantId};

use super::{Domain, PAGE_BYTES_MAX, Page, PageRequest};
use crate::object::{Kind, Object};

/// Most devices looked at in one call; whoever wants more asks for the next page.
const LOOKED_AT_MAX: usize = 10_000;
/// Devices read from the store at once.
const READ_AT_ONCE: usize = 1_000;

/// Which devices of a tenant; without anything: all.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// By their labels.
    pub selector: LabelSelector,
    pub device_type: Option<String>,
    pub group: Option<String>,
}

impl Choice {
    /// Whether every device is meant.
    pub(super) fn is_all(&self) -> bool {
        self.selector.is_empty() && self.device_type.is_none() && self.group.is_none()
    }

    fn selects(&self, groups: &[DeviceGroupSpec], device: &Object) -> bool {
        let (spec, labels) = (device.spec.device(), &device.meta.labels);
        (self.device_type.is_none() || self.device_type == spec.device_type)
            && self.selector.matches(labels)
            && groups.iter().all(|group| group.selects(labels, spec))
    }
}

impl Domain {
    /// Chosen devices in the order of their names. A page has few, or none, and still a next one where
    /// [`LOOKED_AT_MAX`] were looked at. `not_found` if there is no such group.
    pub(super) async fn chosen(&self, request: &PageRequest, choice: &Choice) -> Result<Page, ApiError> {
        let limit = request.limit()?;
        let groups = match &choice.group {
            Some(name) => self.group_and_around(&request.tenant, name).await?,
            None => Vec::new(),
        };
        let (mut items, mut bytes, mut looked_at, mut after) = (Vec::new(), 0, 0, request.after.clone());
        while looked_at < LOOKED_AT_MAX {
            let found = self.store.page(Kind::Device, &request.tenant, &after, READ_AT_ONCE).await?;
            let more = found.len() == READ_AT_ONCE;
            looked_at += found.len();
            for device in found {
                let name = device.meta.name.clone();
                if choice.selects(&groups, &device) {
                    bytes += device.bytes();
                    if items.len() == limit || (bytes > PAGE_BYTES_MAX && !items.is_empty()) {
                        return Ok(Page { items, next: after });
                    }
                    items.push(device);
                }
                after = name;
            }
            if !more {
                return Ok(Page { items, next: String::new() });
            }
        }
        Ok(Page { items, next: after })
    }

    /// A group and those it is within. `failed_precondition` where one of them is gone, or they are too many: several
    /// registry processes can write, at once, what neither would write after the other.
    async fn group_and_around(&self, tenant: &TenantId, name: &str) -> Result<Vec<DeviceGroupSpec>, ApiError> {
        let broken = |message: String| {
            let error = ApiError::new(ErrorCode::FailedPrecondition, message);
            ApiError { field: Some("spec.parent".into()), ..error }
        };
        let mut groups = vec![self.get_device_group(tenant, name).await?.spec.device_group().clone()];
        while let Some(parent) = groups.last().and_then(|group| group.parent.clone()) {
            if groups.len() == GROUP_DEPTH_MAX {
                let error = broken(format!("too many groups are around group {name}"));
                return Err(error.over(GROUP_DEPTH_MAX, GROUP_DEPTH_MAX + 1));
            }
            let around = self.get_device_group(tenant, &parent).await.map_err(|error| match error.code {
                ErrorCode::NotFound => broken(format!("group {parent}, which group {name} is within, does not exist")),
                _ => error,
            })?;
            groups.push(around.spec.device_group().clone());
        }
        Ok(groups)
    }
}
