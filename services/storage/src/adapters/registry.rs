//! The registry's devices, by gRPC.
//!
//! Adapter layer.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::from_status;
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{GetDeviceResponse, ListDevicesRequest};
use drover_types::{ApiError, ErrorCode, TenantId};
use tokio::time::timeout;

use crate::ports::{DeviceList, Registered};

/// Devices of one call, as many as the registry tells.
const PAGE_DEVICES: u32 = 1_000;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The registry.
pub struct Registry(RegistryClient<grpc::Client>);

impl Registry {
    /// The registry that `network` reaches.
    pub fn over(network: &Network) -> Self {
        Self(RegistryClient::new(network.client("registry")))
    }
}

#[async_trait]
impl DeviceList for Registry {
    async fn page(&self, tenant: &TenantId, token: &str) -> Result<(Vec<Registered>, String), ApiError> {
        let request = ListDevicesRequest {
            tenant: tenant.to_string(),
            page_size: PAGE_DEVICES,
            page_token: token.to_owned(),
            ..Default::default()
        };
        let listed = timeout(PATIENCE, self.0.clone().list_devices(request)).await;
        let listed = listed.map_err(|_| {
            ApiError::new(ErrorCode::Unavailable, format!("the registry does not answer within {PATIENCE:?}"))
        })?;
        let listed = listed.map_err(|status| away(&from_status(&status)))?.into_inner();
        Ok((listed.devices.into_iter().filter_map(registered).collect(), listed.next_page_token))
    }
}

/// What is wrong between the registry and us is not wrong with the question.
fn away(error: &ApiError) -> ApiError {
    tracing::warn!(%error, "the registry told no devices to a question in SQL");
    ApiError::new(ErrorCode::Unavailable, "the registry does not tell its devices; the log of storage says why")
}

/// A device as it is told; `None`: nothing was told of it.
fn registered(told: GetDeviceResponse) -> Option<Registered> {
    let device = told.device?;
    let meta = device.meta?;
    Some(Registered {
        name: meta.name,
        device_type: device.r#type,
        enabled: device.enabled,
        labels: meta.labels.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests;
