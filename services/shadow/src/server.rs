//! gRPC: decodes, asks the store or the log, encodes.

use std::sync::Arc;

use drover_proto::shadow::v1 as wire;
use drover_proto::shadow::v1::shadow_server::Shadow;
use drover_proto::to_status;
use drover_types::limits::PAYLOAD_BYTES_MAX;
use drover_types::shadow::{ShadowName, ShadowOperation};
use drover_types::{ApiError, Clock, DEFAULT_TENANT, DeviceId, DeviceKey, ErrorCode, RecordId, TenantId};
use tonic::{Request, Response, Status};

use crate::domain::ShadowKey;
use crate::ports::ShadowStore;
use crate::requests::Requests;

/// The service `drover.shadow.v1.Shadow`.
pub struct Server {
    pub store: Arc<dyn ShadowStore>,
    pub requests: Requests,
    pub clock: Arc<dyn Clock>,
}

impl Server {
    async fn get(&self, request: wire::GetShadowRequest) -> Result<wire::GetShadowResponse, ApiError> {
        let key = shadow_key(&request.tenant, &request.device, &request.name)?;
        let missing = || ApiError::new(ErrorCode::NotFound, format!("No shadow exists with name: '{}'", key.shown()));
        let shadow = self.store.get(&key).await?.ok_or_else(missing)?;
        let document = shadow.shown(self.clock.now_ms() / 1_000).ok_or_else(missing)?;
        Ok(wire::GetShadowResponse { document, version: shadow.version })
    }

    async fn update(&self, request: wire::UpdateShadowRequest) -> Result<wire::UpdateShadowResponse, ApiError> {
        let key = shadow_key(&request.tenant, &request.device, &request.name)?;
        let bytes = request.document.len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(ApiError::invalid("document", "document is too large").over(PAYLOAD_BYTES_MAX, bytes));
        }
        let (id, document) = (record_id(&request.id)?, request.document.into());
        let accepted = self.requests.ask(&key, ShadowOperation::Update, document, id).await?;
        Ok(wire::UpdateShadowResponse { document: accepted.payload, version: accepted.version })
    }

    async fn delete(&self, request: wire::DeleteShadowRequest) -> Result<wire::DeleteShadowResponse, ApiError> {
        let key = shadow_key(&request.tenant, &request.device, &request.name)?;
        let id = record_id(&request.id)?;
        let accepted = self.requests.ask(&key, ShadowOperation::Delete, Default::default(), id).await?;
        Ok(wire::DeleteShadowResponse { version: accepted.version })
    }

    async fn list(&self, request: wire::ListShadowsRequest) -> Result<wire::ListShadowsResponse, ApiError> {
        let names = self.store.names(&device_key(&request.tenant, &request.device)?).await?;
        let there = names.into_iter().filter(|(_, there)| *there);
        Ok(wire::ListShadowsResponse { names: there.map(|(name, _)| name.as_str().to_owned()).collect() })
    }
}

fn answer<T>(outcome: Result<T, ApiError>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|error| to_status(&error))
}

#[tonic::async_trait]
impl Shadow for Server {
    async fn get_shadow(
        &self,
        request: Request<wire::GetShadowRequest>,
    ) -> Result<Response<wire::GetShadowResponse>, Status> {
        answer(self.get(request.into_inner()).await)
    }

    async fn update_shadow(
        &self,
        request: Request<wire::UpdateShadowRequest>,
    ) -> Result<Response<wire::UpdateShadowResponse>, Status> {
        answer(self.update(request.into_inner()).await)
    }

    async fn delete_shadow(
        &self,
        request: Request<wire::DeleteShadowRequest>,
    ) -> Result<Response<wire::DeleteShadowResponse>, Status> {
        answer(self.delete(request.into_inner()).await)
    }

    async fn list_shadows(
        &self,
        request: Request<wire::ListShadowsRequest>,
    ) -> Result<Response<wire::ListShadowsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}

fn device_key(tenant: &str, device: &str) -> Result<DeviceKey, ApiError> {
    let tenant = if tenant.is_empty() { DEFAULT_TENANT } else { tenant };
    Ok(DeviceKey {
        tenant: TenantId::new(tenant).map_err(|e| ApiError::invalid("tenant", e.to_string()))?,
        device: DeviceId::new(device).map_err(|e| ApiError::invalid("device", e.to_string()))?,
    })
}

fn shadow_key(tenant: &str, device: &str, name: &str) -> Result<ShadowKey, ApiError> {
    let name = ShadowName::new(name).map_err(|e| ApiError::invalid("name", e.to_string()))?;
    Ok(ShadowKey { device: device_key(tenant, device)?, name })
}

/// The id a request names itself by. There is none without: whoever calls again, as the platform's own clients do, has to be
/// recognised.
fn record_id(id: &[u8]) -> Result<RecordId, ApiError> {
    let bytes = id.try_into().map_err(|_| ApiError::invalid("id", "an id has 16 bytes").over(16, id.len()))?;
    Ok(RecordId(bytes))
}
