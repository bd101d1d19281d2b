//! The gRPC service: decodes, calls the domain, encodes. No decisions.

mod decode;
mod encode;

use std::sync::Arc;

use drover_proto::storage::v1 as wire;
use drover_proto::storage::v1::storage_server::Storage;
use drover_proto::to_status;
use drover_types::ApiError;
use tonic::{Request, Response, Status};

use crate::domain::{LATEST, MESSAGES, Queries, RANGE, Range, Token, check_devices, row_entry};
use crate::rows::Rows;
use crate::sql::{self, Sql};
use crate::telemetry::Telemetry;

/// The service `drover.storage.v1.Storage`.
pub struct Server {
    pub queries: Arc<Queries>,
    pub rows: Rows,
    pub sql: Arc<Sql>,
    pub telemetry: Telemetry,
}

impl Server {
    async fn latest(&self, request: wire::GetLatestRequest) -> Result<wire::GetLatestResponse, ApiError> {
        let device = decode::device(&request.tenant, &request.device)?;
        let rows = LATEST.of("limit", request.limit)?;
        let page = self.queries.latest(&device, &request.page_token, rows).await?;
        Ok(wire::GetLatestResponse {
            points: page.rows.into_iter().map(encode::point).collect(),
            next_page_token: page.next.map(|field| field.to_string()).unwrap_or_default(),
        })
    }

    async fn range(&self, request: wire::GetRangeRequest) -> Result<wire::GetRangeResponse, ApiError> {
        let range = Range {
            series: decode::series(&request.tenant, &request.device, &request.field)?,
            from_ms: request.from_ms,
            to_ms: decode::end(request.to_ms),
            step_ms: request.step_ms,
            rows: RANGE.of("limit", request.limit)?,
            token: Token::parse(&request.page_token)?,
        };
        let answer = self.queries.range(&range).await?;
        Ok(wire::GetRangeResponse {
            points: answer.points.into_iter().map(encode::point).collect(),
            steps: answer.steps.into_iter().map(encode::step).collect(),
            next_from_ms: answer.next.map(|next| next.time_ms).unwrap_or_default(),
            next_page_token: encode::token(answer.next),
        })
    }

    async fn messages(&self, request: wire::GetMessagesRequest) -> Result<wire::GetMessagesResponse, ApiError> {
        let device = decode::device(&request.tenant, &request.device)?;
        let rows = MESSAGES.of("limit", request.limit)?;
        let token = Token::parse(&request.page_token)?;
        let to_ms = decode::end(request.to_ms);
        let page = self.queries.messages(&device, request.from_ms, to_ms, token, rows).await?;
        Ok(wire::GetMessagesResponse {
            messages: page.rows.into_iter().map(encode::message).collect(),
            next_page_token: encode::token(page.next),
        })
    }

    async fn last_heard(&self, request: wire::GetLastHeardRequest) -> Result<wire::GetLastHeardResponse, ApiError> {
        check_devices("devices", request.devices.len())?;
        let keys = decode::devices(&request.tenant, &request.devices)?;
        let times = self.queries.last_heard(&keys).await?;
        let heard = request.devices.into_iter().zip(times);
        let heard = heard.filter_map(|(device, time_ms)| Some(wire::LastHeard { device, time_ms: time_ms? }));
        Ok(wire::GetLastHeardResponse { devices: heard.collect() })
    }

    async fn keep(&self, request: wire::StoreRowRequest) -> Result<wire::StoreRowResponse, ApiError> {
        let device = decode::device(&request.tenant, &request.device)?;
        let at = decode::place(request.time_ms, &request.id)?;
        let entry = row_entry(device, &request.table, at, request.row.into())?;
        self.rows.keep(entry).await?;
        Ok(wire::StoreRowResponse {})
    }

    async fn sql(&self, request: wire::QueryRequest) -> Result<wire::QueryResponse, ApiError> {
        let answer = self.sql.query(decode::tenant(&request.tenant)?, request.sql).await?;
        let column = |column: sql::Column| wire::Column { name: column.name, r#type: column.kind };
        Ok(wire::QueryResponse {
            columns: answer.columns.into_iter().map(column).collect(),
            rows: answer.rows,
            truncated: answer.truncated,
        })
    }

    fn answer<T>(&self, method: &'static str, outcome: Result<T, ApiError>) -> Result<Response<T>, Status> {
        self.telemetry.answered(method, outcome.as_ref().map(drop).map_err(|error| error.code));
        outcome.map(Response::new).map_err(|error| to_status(&error))
    }
}

#[tonic::async_trait]
impl Storage for Server {
    async fn get_latest(
        &self,
        request: Request<wire::GetLatestRequest>,
    ) -> Result<Response<wire::GetLatestResponse>, Status> {
        self.answer("latest", self.latest(request.into_inner()).await)
    }

    async fn get_range(
        &self,
        request: Request<wire::GetRangeRequest>,
    ) -> Result<Response<wire::GetRangeResponse>, Status> {
        self.answer("range", self.range(request.into_inner()).await)
    }

    async fn get_messages(
        &self,
        request: Request<wire::GetMessagesRequest>,
    ) -> Result<Response<wire::GetMessagesResponse>, Status> {
        self.answer("messages", self.messages(request.into_inner()).await)
    }

    async fn get_last_heard(
        &self,
        request: Request<wire::GetLastHeardRequest>,
    ) -> Result<Response<wire::GetLastHeardResponse>, Status> {
        self.answer("last_heard", self.last_heard(request.into_inner()).await)
    }

    async fn query(&self, request: Request<wire::QueryRequest>) -> Result<Response<wire::QueryResponse>, Status> {
        self.answer("query", self.sql(request.into_inner()).await)
    }

    async fn store_row(
        &self,
        request: Request<wire::StoreRowRequest>,
    ) -> Result<Response<wire::StoreRowResponse>, Status> {
        self.answer("store_row", self.keep(request.into_inner()).await)
    }
}
