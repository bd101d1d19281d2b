//! Storage and a shadow service of a few lines, behind the real gRPC code.

use std::collections::BTreeMap;
use std::sync::Mutex;

use drover_proto::shadow::v1::shadow_server::Shadow;
use drover_proto::shadow::v1::*;
use drover_proto::storage::v1::storage_server::Storage;
use drover_proto::storage::v1::*;
use drover_proto::to_status;
use drover_types::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// Has one point and one message of every device of tenant `home`; tells back what it was asked.
pub struct FakeStorage;

/// Keeps the last document of each shadow.
#[derive(Default)]
pub struct FakeShadow(Mutex<BTreeMap<(String, String, String), Vec<u8>>>);

fn point(time_ms: u64, number: f64) -> Point {
    let value = Some(point::Value::Number(number));
    Point { field: "temperature".into(), topic: "a".into(), time_ms, value }
}

#[tonic::async_trait]
impl Storage for FakeStorage {
    async fn get_latest(&self, request: Request<GetLatestRequest>) -> Answer<GetLatestResponse> {
        let known = request.into_inner().tenant == "home";
        Ok(Response::new(GetLatestResponse {
            points: if known { vec![point(1_000, 21.5)] } else { vec![] },
            ..Default::default()
        }))
    }

    /// Every device of tenant `home` a second after it was made, and those named `again…` long before. Never answers tenant `slow`.
    async fn get_last_heard(&self, request: Request<GetLastHeardRequest>) -> Answer<GetLastHeardResponse> {
        let GetLastHeardRequest { tenant, devices } = request.into_inner();
        if tenant == "slow" {
            return std::future::pending().await;
        }
        let known = devices.into_iter().filter(|_| tenant == "home");
        let time_ms = |device: &str| if device.starts_with("again") { 1_000 } else { 1_700_000_001_000 };
        let devices = known.map(|device| LastHeard { time_ms: time_ms(&device), device }).collect();
        Ok(Response::new(GetLastHeardResponse { devices }))
    }

    /// Points at both ends of the span, or one step as wide as asked for; the limit is the count of the step.
    async fn get_range(&self, request: Request<GetRangeRequest>) -> Answer<GetRangeResponse> {
        let GetRangeRequest { from_ms, to_ms, step_ms, limit, .. } = request.into_inner();
        if step_ms == 0 {
            let points = vec![point(from_ms, 1.0), point(to_ms, 2.0)];
            return Ok(Response::new(GetRangeResponse { points, next_from_ms: to_ms, ..Default::default() }));
        }
        let step = Step { time_ms: from_ms, count: limit.into(), average: 1.5, minimum: 1.0, maximum: step_ms as f64 };
        Ok(Response::new(GetRangeResponse { steps: vec![step], ..Default::default() }))
    }

    async fn get_messages(&self, request: Request<GetMessagesRequest>) -> Answer<GetMessagesResponse> {
        let request = request.into_inner();
        let payload = format!("{}-{}", request.device, request.limit).into_bytes();
        let (id, topic) = (vec![1; 16], "a".into());
        let message = StoredMessage { id, time_ms: request.to_ms, topic, qos: 1, payload, of_rule: false };
        Ok(Response::new(GetMessagesResponse { messages: vec![message], ..Default::default() }))
    }

    /// One row: the tenant and the question. Nothing can be read from `nowhere`.
    async fn query(&self, request: Request<QueryRequest>) -> Answer<QueryResponse> {
        let QueryRequest { tenant, sql } = request.into_inner();
        if sql.contains("nowhere") {
            return Err(to_status(&ApiError::invalid("sql", "table nowhere not found")));
        }
        let column = |name: &str| Column { name: name.into(), r#type: "text".into() };
        let row = serde_json::json!({"tenant": tenant, "sql": sql}).to_string();
        Ok(Response::new(QueryResponse {
            columns: vec![column("tenant"), column("sql")],
            rows: vec![row],
            truncated: true,
        }))
    }

    async fn store_row(&self, _: Request<StoreRowRequest>) -> Answer<StoreRowResponse> {
        Err(Status::unimplemented("the gateway never asks this"))
    }
}

#[tonic::async_trait]
impl Shadow for FakeShadow {
    async fn get_shadow(&self, request: Request<GetShadowRequest>) -> Answer<GetShadowResponse> {
        let GetShadowRequest { tenant, device, name } = request.into_inner();
        let found = self.0.lock().unwrap().get(&(tenant, device, name)).cloned();
        let missing = || to_status(&ApiError::new(ErrorCode::NotFound, "there is no such shadow"));
        Ok(Response::new(GetShadowResponse { document: found.ok_or_else(missing)?, version: 1 }))
    }

    async fn update_shadow(&self, request: Request<UpdateShadowRequest>) -> Answer<UpdateShadowResponse> {
        let UpdateShadowRequest { tenant, device, name, document, id } = request.into_inner();
        assert_eq!(id.len(), 16, "it may have to be asked again");
        self.0.lock().unwrap().insert((tenant, device, name), document.clone());
        Ok(Response::new(UpdateShadowResponse { document, version: 1 }))
    }

    async fn delete_shadow(&self, request: Request<DeleteShadowRequest>) -> Answer<DeleteShadowResponse> {
        let DeleteShadowRequest { tenant, device, name, id } = request.into_inner();
        assert_eq!(id.len(), 16, "it may have to be asked again");
        self.0.lock().unwrap().remove(&(tenant, device, name));
        Ok(Response::new(DeleteShadowResponse { version: 2 }))
    }

    async fn list_shadows(&self, request: Request<ListShadowsRequest>) -> Answer<ListShadowsResponse> {
        let ListShadowsRequest { tenant, device } = request.into_inner();
        let shadows = self.0.lock().unwrap();
        let names = shadows.keys().filter(|(t, d, _)| *t == tenant && *d == device).map(|(_, _, name)| name.clone());
        Ok(Response::new(ListShadowsResponse { names: names.collect() }))
    }

    async fn list_open_deltas(&self, _: Request<ListOpenDeltasRequest>) -> Answer<ListOpenDeltasResponse> {
        Err(Status::unimplemented("the gateway never asks this"))
    }
}
