//! `POST /v1/batch`: JSON Lines, one credential, many devices. Rows are taken as they come, so many at once; each such part
//! is durable before the next is read, which bounds what a batch holds in memory and keeps a device's rows in order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use drover_host::http::Failure;
use drover_types::limits::TOPIC_BYTES_MAX;
use drover_types::{ApiError, DeviceId, ErrorCode, TraceParent};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::publish::traceparent;
use super::who::proof;
use super::{DeviceSide, telemetry};
use crate::domain::batch::{Line, Lines, Row};
use crate::domain::identity::{Identity, Proof};
use crate::domain::message::Message;
use crate::domain::node::Node;
use crate::domain::post::{self, Identities, Way, identify};
use crate::server::traced;

/// Rows of one part.
const PART_ROWS_MAX: usize = 500;
/// Payload bytes after which a part is complete.
const PART_BYTES_MAX: usize = 1024 * 1024;
/// Room in a line beside payload and topic: names, ids, a time.
const LINE_BYTES_BESIDE: usize = 4 * 1024;

/// A row that was not kept.
#[derive(Debug, Serialize)]
struct Refused {
    /// The number of its line, from 1 on.
    row: usize,
    error: ApiError,
}

/// What became of the rows.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Rows that are durable.
    kept: usize,
    /// Rows that will never be kept as they are.
    refused: Vec<Refused>,
    /// The first row of which nothing is known, and why: that one and those behind it are to be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Refused>,
    /// Why nothing was kept: the first of the reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

impl IntoResponse for Report {
    /// 200: all rows are durable; 207: some are; nothing is: the status of the first reason.
    fn into_response(mut self) -> Response {
        let reason = self.refused.first().or(self.stopped.as_ref()).map(|refused| refused.error.clone());
        let status = match reason {
            None => StatusCode::OK,
            Some(_) if self.kept > 0 => StatusCode::MULTI_STATUS,
            Some(error) => {
                let status = StatusCode::from_u16(error.code.http()).expect("codes map to valid statuses");
                self.error = Some(error);
                status
            }
        };
        (status, Json(self)).into_response()
    }
}

/// A batch on its way.
struct Batch<'a> {
    side: &'a DeviceSide,
    proof: Proof,
    traceparent: Option<TraceParent>,
    lines: Lines,
    bytes: usize,
    /// Rows so far, those that are none among them.
    rows: usize,
    /// With their numbers.
    part: Vec<(usize, Row)>,
    part_bytes: usize,
    report: Report,
}

/// Takes the rows and tells what became of each.
pub async fn post(State(side): State<Arc<DeviceSide>>, request: Request) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let proof = proof(&head)?;
    let gateway = identify(&side.node, proof.clone()).await?;
    let limit = side.batch_bytes_max;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if let Some(length) = declared.filter(|length| *length > limit) {
        return Err(ApiError::invalid("body", "is too large").over(limit, length).into());
    }
    let turn = side.turns.take(&gateway.tenant, side.patience).await?;
    let mut batch = Batch::new(&side, proof, traceparent(&head.headers));
    batch.take(body).await;
    drop(turn);
    if batch.rows == 0 && batch.report.stopped.is_none() {
        return Err(ApiError::invalid("body", "there is no row").into());
    }
    side.telemetry.rows(telemetry::Outcome::Kept, batch.report.kept);
    side.telemetry.rows(telemetry::Outcome::Refused, batch.report.refused.len());
    Ok(batch.report.into_response())
}

impl<'a> Batch<'a> {
    fn new(side: &'a DeviceSide, proof: Proof, traceparent: Option<TraceParent>) -> Self {
        // A payload in Base64 has four bytes for three, one of JSON with escapes up to two for one.
        let line_bytes_max = 2 * side.node.environment.limits.payload_bytes_max + TOPIC_BYTES_MAX + LINE_BYTES_BESIDE;
        Self {
            side,
            proof,
            traceparent,
            lines: Lines::new(line_bytes_max),
            bytes: 0,
            rows: 0,
            part: Vec::new(),
            part_bytes: 0,
            report: Report::default(),
        }
    }

    /// Takes all rows, or those in front of what stops it.
    async fn take(&mut self, body: Body) {
        let read = self.read(body.into_data_stream()).await;
        // Rows that came before the body broke off are kept like all others.
        let kept = self.keep().await;
        self.report.stopped = kept.and(read).err();
    }

    async fn read(&mut self, mut body: BodyDataStream) -> Result<(), Refused> {
        let mut deadline = Instant::now() + self.side.patience;
        loop {
            let bytes = match timeout_at(deadline, body.next()).await {
                Ok(Some(Ok(bytes))) => bytes,
                Ok(Some(Err(error))) => {
                    return Err(self.stopped(ApiError::invalid("body", format!("could not be read: {error}"))));
                }
                Ok(None) => break,
                Err(_) => return Err(self.stopped(late(self.side.patience))),
            };
            self.bytes += bytes.len();
            if self.bytes > self.side.batch_bytes_max {
                let limit = self.side.batch_bytes_max;
                let error = ApiError::invalid("body", "is too large").over(limit, format!("more than {limit}"));
                return Err(self.stopped(error));
            }
            self.lines.push(&bytes);
            while let Some((number, line)) = self.lines.next_line() {
                self.row(number, line)?;
                if self.part.len() >= PART_ROWS_MAX || self.part_bytes >= PART_BYTES_MAX {
                    self.keep().await?;
                    deadline = Instant::now() + self.side.patience;
                }
            }
        }
        self.lines.last_line().map_or(Ok(()), |(number, line)| self.row(number, line))
    }

    /// Nothing is known of the next row and those behind it.
    fn stopped(&self, error: ApiError) -> Refused {
        Refused { row: self.lines.next_number(), error }
    }

    fn row(&mut self, number: usize, line: Line) -> Result<(), Refused> {
        if self.rows >= self.side.batch_rows_max {
            let limit = self.side.batch_rows_max;
            let error = ApiError::invalid("body", "has too many rows").over(limit, format!("more than {limit}"));
            return Err(Refused { row: number, error });
        }
        self.rows += 1;
        let row = match line {
            Line::Row(text) => Row::read(&text, self.side.node.now().unix_ms),
            Line::TooLong => Err(ApiError::invalid("row", "is too long").over(self.lines.bytes_max(), "more")),
        };
        match row {
            Ok(row) => {
                self.part_bytes += row.post.payload.len();
                self.part.push((number, row));
            }
            Err(error) => self.report.refused.push(Refused { row: number, error }),
        }
        Ok(())
    }

    /// Makes the part durable; an error if nothing is known of its rows.
    async fn keep(&mut self) -> Result<(), Refused> {
        self.part_bytes = 0;
        let part = std::mem::take(&mut self.part);
        let Some((first, _)) = part.first() else { return Ok(()) };
        let row = *first;
        let unknown = move |error| Refused { row, error };
        let node = &self.side.node;
        // Again for each part: a gateway may be out by now.
        let gateway = identify(node, self.proof.clone()).await.map_err(unknown)?;
        let received_ms = node.now().unix_ms;
        let identities = identities(node, &gateway, &part).await;
        let (mut messages, mut refused) = (Vec::new(), Vec::new());
        for (number, mut row) in part {
            row.post.traceparent = traced::publish(&row.device, &row.post.topic, self.traceparent.clone());
            match message(node, &gateway, &identities, row, received_ms) {
                Ok(message) => messages.push(message),
                Err(error) if error.code == ErrorCode::Unavailable => return Err(unknown(error)),
                Err(error) => refused.push(Refused { row: number, error }),
            }
        }
        let keeping = node.publish_all(&messages, received_ms);
        post::in_time(node, self.side.patience, keeping).await.map_err(unknown)?;
        self.report.kept += messages.len();
        self.report.refused.extend(refused);
        Ok(())
    }
}

fn late(patience: Duration) -> ApiError {
    let error = ApiError::new(ErrorCode::DeadlineExceeded, "the rows did not come in time");
    ApiError { field: Some("body".into()), ..error }.over(format!("{patience:?}"), "more")
}

/// Who the devices are that the gateway may speak for.
async fn identities(node: &Node, gateway: &Identity, part: &[(usize, Row)]) -> Identities {
    let named = part.iter().map(|(_, row)| row.device.clone());
    let devices: BTreeSet<DeviceId> = named.filter(|device| gateway.may_publish_for(device.as_str())).collect();
    post::on_behalf(node, &gateway.tenant, devices).await
}

fn message(
    node: &Node,
    gateway: &Identity,
    identities: &Identities,
    Row { device, time_ms, post }: Row,
    received_ms: u64,
) -> Result<Arc<Message>, ApiError> {
    let Some(identity) = identities.get(&device) else {
        let message = format!("the policies of {} do not allow it to publish for this device", gateway.device);
        return Err(ApiError { field: Some("device".into()), ..ApiError::new(ErrorCode::PermissionDenied, message) });
    };
    let of_device = |error: ApiError| ApiError { field: Some("device".into()), ..error };
    let identity = identity.as_ref().map_err(|error| of_device(error.clone()))?;
    let way = Way::of(format!("http:{}/{device}", gateway.device));
    post::message(node, identity, &identity.device, &way, post, time_ms.unwrap_or(received_ms), received_ms)
}
