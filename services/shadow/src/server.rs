//! gRPC: decodes, asks the store or the log, encodes.

use std::sync::Arc;

use drover_bus::Bus;
use drover_proto::shadow::v1 as wire;
use drover_proto::shadow::v1::shadow_server::Shadow;
use drover_proto::to_status;
use drover_types::limits::PAYLOAD_BYTES_MAX;
use drover_types::shadow::{ShadowName, ShadowOperation};
use drover_types::{ApiError, Clock, DEFAULT_TENANT, DeviceId, DeviceKey, ErrorCode, RecordId, TenantId, in_range};
use tonic::{Request, Response, Status};

use crate::domain::ShadowKey;
use crate::lag;
use crate::ports::ShadowStore;
use crate::requests::Requests;

/// Most devices of one page of open deltas, 128 bytes each at most.
const OPEN_DELTAS_PAGE_MAX: u32 = 1_000;

/// The service `drover.shadow.v1.Shadow`.
pub struct Server {
    pub store: Arc<dyn ShadowStore>,
    pub requests: Requests,
    pub clock: Arc<dyn Clock>,
    pub bus: Arc<dyn Bus>,
    /// Of the documents.
    pub partitions: u32,
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

    async fn open_deltas(
        &self,
        request: wire::ListOpenDeltasRequest,
    ) -> Result<wire::ListOpenDeltasResponse, ApiError> {
        let tenant = tenant_id(&request.tenant)?;
        let size = if request.page_size == 0 { OPEN_DELTAS_PAGE_MAX } else { request.page_size };
        in_range("page_size", size, 1, OPEN_DELTAS_PAGE_MAX)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(DeviceId::new(token).map_err(|e| ApiError::invalid("page_token", e.to_string()))?),
        };
        if after.is_none() {
            lag::check(&*self.bus, &*self.store, self.partitions, self.clock.now_ms()).await?;
        }
        let limit = size as usize;
        let devices = self.store.open_deltas(&tenant, after.as_ref(), limit).await?;
        let last = devices.last().filter(|_| devices.len() == limit);
        let next_page_token = last.map(DeviceId::to_string).unwrap_or_default();
        Ok(wire::ListOpenDeltasResponse { devices: devices.into_iter().map(String::from).collect(), next_page_token })
    }
}

pub fn answer<T>(outcome: Result<T, ApiError>) -> Result<Response<T>, Status> {
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

    async fn list_open_deltas(
        &self,
        request: Request<wire::ListOpenDeltasRequest>,
    ) -> Result<Response<wire::ListOpenDeltasResponse>, Status> {
        answer(self.open_deltas(request.into_inner()).await)
    }
}

fn tenant_id(tenant: &str) -> Result<TenantId, ApiError> {
    let tenant = if tenant.is_empty() { DEFAULT_TENANT } else { tenant };
    TenantId::new(tenant).map_err(|e| ApiError::invalid("tenant", e.to_string()))
}

pub fn device_key(tenant: &str, device: &str) -> Result<DeviceKey, ApiError> {
    Ok(DeviceKey {
        tenant: tenant_id(tenant)?,
        device: DeviceId::new(device).map_err(|e| ApiError::invalid("device", e.to_string()))?,
    })
}

fn shadow_key(tenant: &str, device: &str, name: &str) -> Result<ShadowKey, ApiError> {
    let name = ShadowName::new(name).map_err(|e| ApiError::invalid("name", e.to_string()))?;
    Ok(ShadowKey { device: device_key(tenant, device)?, name })
}

/// The id a request names itself by. There is none without: whoever calls again, as the platform's own clients do, has to be
/// recognised.
pub fn record_id(id: &[u8]) -> Result<RecordId, ApiError> {
    let bytes = id.try_into().map_err(|_| ApiError::invalid("id", "an id has 16 bytes").over(16, id.len()))?;
    Ok(RecordId(bytes))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drover_bus::embedded::{EmbeddedBus, EmbeddedOptions};
    use drover_bus::{Headers, Outgoing, Record};
    use drover_types::FixedClock;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::conformance::MemoryStore;
    use crate::domain::Shadow as Document;
    use crate::telemetry::Telemetry;
    use crate::topics::{self, DOCUMENTS_TOPIC};

    const NOW_MS: u64 = 1_795_000_000_000;
    const DAY_MS: u64 = 24 * 3600 * 1_000;
    const PARTITIONS: u32 = 2;
    /// What is kept of a shadow that wants something.
    const OPEN: &str = r#"{"state":{"desired":{"on":true}},"metadata":{},"version":1,"timestamp":7}"#;

    fn open(device: &str) -> (ShadowKey, Document) {
        let key = ShadowKey::parse(&format!("home/{device}")).expect("a key");
        (key, Document::from_json(OPEN.as_bytes()).expect("a document"))
    }

    #[tokio::test]
    async fn open_deltas_are_told_in_pages_and_not_while_the_store_is_behind_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("opens").0;
        let (bus, store, clock) = (Arc::new(log), Arc::<MemoryStore>::default(), Arc::new(FixedClock::at(NOW_MS)));
        topics::create(&*bus, PARTITIONS, DAY_MS).await.expect("made");
        let telemetry = Telemetry::register(&mut Registry::default());
        let (log, view, deadline) = (bus.clone(), store.clone(), Duration::from_secs(1));
        let server = Server {
            store: store.clone(),
            requests: Requests::new(log, view, clock.clone(), telemetry, PARTITIONS, deadline),
            clock: clock.clone(),
            bus: bus.clone(),
            partitions: PARTITIONS,
        };
        let list = async |page_size: u32, page_token: &str| {
            let (tenant, page_token) = ("home".to_owned(), page_token.to_owned());
            server.open_deltas(wire::ListOpenDeltasRequest { tenant, page_size, page_token }).await
        };
        let told = |devices: &[&str], next: &str| {
            let devices = devices.iter().map(|device| (*device).to_owned()).collect();
            Ok::<_, ApiError>(wire::ListOpenDeltasResponse { devices, next_page_token: next.to_owned() })
        };

        let (key, value) = (Some("home/lamp".into()), Some(OPEN.into()));
        let record = Record { key, value, headers: Headers::default(), timestamp_ms: NOW_MS.cast_signed() };
        let document = Outgoing { partition: Some(1), ..Outgoing::keyed(DOCUMENTS_TOPIC, record) };
        bus.append(vec![document]).await.expect("taken").await.expect("durable");
        assert_eq!(list(0, "").await, told(&[], ""), "a document may be on its way");
        clock.advance(lag::LAG_MS_MAX + 1);
        let behind = list(0, "").await.expect_err("the store has not got it");
        assert_eq!((behind.code, behind.message.contains("partition 1 ")), (ErrorCode::Unavailable, true));

        store.put(1, 0, 1, ["lamp", "fan", "bulb"].map(open).to_vec()).await.expect("put");
        assert_eq!(list(2, "").await, told(&["bulb", "fan"], "fan"));
        assert_eq!(list(2, "fan").await, told(&["lamp"], ""));
        let refused = list(1_001, "").await.expect_err("too many");
        assert_eq!((refused.field.as_deref(), refused.limit.as_deref()), (Some("page_size"), Some("1000")));

        store.put(0, 0, 9, Vec::new()).await.expect("put");
        assert_eq!(list(0, "").await.expect_err("the view of another log").code, ErrorCode::Unavailable);
    }
}
