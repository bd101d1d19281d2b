//! The shadow service over gRPC.

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{GetShadowRequest, ListOpenDeltasRequest, UpdateShadowRequest};
use drover_types::{ApiError, DeviceKey, ErrorCode, TenantId};
use serde_json::{Map, Value, json};

use super::backend::{Backend, unless_gone};
use crate::ports::{OpenDeltas, Shadows};

/// Devices of one page of open deltas.
const PAGE_SIZE: u32 = 1_000;

/// The shadow service of the network.
pub struct GrpcShadows(Backend<ShadowClient<grpc::Client>>);

impl GrpcShadows {
    /// Connects when first used.
    pub fn new(network: &Network) -> Self {
        Self(Backend::new("shadow service", ShadowClient::new(network.client("shadow"))))
    }
}

#[async_trait]
impl Shadows for GrpcShadows {
    async fn desired(&self, device: &DeviceKey) -> Result<(Map<String, Value>, u64), ApiError> {
        let (tenant, device) = (device.tenant.to_string(), device.device.to_string());
        let request = GetShadowRequest { tenant, device, name: String::new() };
        let answer = unless_gone(self.0.call(async |mut client| client.get_shadow(request).await).await)?;
        let Some(found) = answer else { return Ok((Map::new(), 0)) };
        let mut document: Value = serde_json::from_slice(&found.document)
            .map_err(|error| ApiError::new(ErrorCode::Internal, format!("a shadow is not JSON: {error}")))?;
        let desired = document.pointer_mut("/state/desired").map(Value::take);
        let desired = match desired {
            Some(Value::Object(desired)) => desired,
            Some(_) | None => Map::new(),
        };
        Ok((desired, found.version))
    }

    async fn update(&self, device: &DeviceKey, desired: &Map<String, Value>, id: [u8; 16]) -> Result<u64, ApiError> {
        let (tenant, device) = (device.tenant.to_string(), device.device.to_string());
        let document = json!({"state": {"desired": desired}}).to_string().into_bytes();
        let request = UpdateShadowRequest { tenant, device, name: String::new(), document, id: id.to_vec() };
        Ok(self.0.call(async |mut client| client.update_shadow(request).await).await?.version)
    }

    async fn open_deltas(&self, tenant: &TenantId, after: &str) -> Result<OpenDeltas, ApiError> {
        let (tenant, page_token) = (tenant.to_string(), after.to_owned());
        let request = ListOpenDeltasRequest { tenant, page_size: PAGE_SIZE, page_token };
        let page = self.0.call(async |mut client| client.list_open_deltas(request).await).await?;
        Ok(OpenDeltas { devices: page.devices, next: page.next_page_token })
    }
}
