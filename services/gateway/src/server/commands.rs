//! `devices/{device}/commands`: sends commands, waits for their answers, shows them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_host::http::Failure;
use drover_proto::shadow::v1::{GetCommandRequest, ListCommandsRequest, SendCommandRequest};
use drover_types::limits::{COMMAND_TIMEOUT_MS_MAX, COMMAND_TIMEOUT_MS_MIN};
use drover_types::{ApiError, RecordId, in_range};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::body::{Params, Raw};
use super::idempotency::{IDEMPOTENCY_KEY, Key, KeyParam};
use super::objects::{Answer, List, Page};
use super::path::{At, DeviceParam};
use crate::domain::command::Execution;

/// Most commands of one page, however many are asked for.
const PAGE_MAX: u32 = 100;
/// Shortest and longest time of a device.
const TIMEOUT_MIN: drover_host::Duration = drover_host::Duration::from_millis(COMMAND_TIMEOUT_MS_MIN);
const TIMEOUT_MAX: drover_host::Duration = drover_host::Duration::from_millis(COMMAND_TIMEOUT_MS_MAX);
/// Longest wait for a device's answer.
const WAIT_MAX: drover_host::Duration = drover_host::Duration::from_secs(60);
/// What the shadow service calls a key.
const KEY_FIELD: &str = "idempotency_key";
/// First and longest pause between two looks at a command that is waited for.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// The parameter `command` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("command"))]
pub struct CommandParam(#[allow(dead_code, reason = "only documents")] String);

/// What a device is to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandOrder {
    /// 1 to 128 of A-Z, a-z, 0-9 and . _ : -.
    name: String,
    /// JSON, 64 KiB at most; null where absent.
    #[schema(value_type = Option<Value>)]
    payload: Option<Box<RawValue>>,
    /// How long the device has, `30s` for example: 1s to 7d; 60s where absent.
    #[schema(value_type = Option<String>)]
    timeout: Option<drover_host::Duration>,
}

/// How long to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Wait {
    /// Longest wait for the device's last answer, `10s` for example: 60s at most; where absent, there is none.
    #[param(value_type = Option<String>)]
    wait: Option<drover_host::Duration>,
}

/// Commands of a device, the newest first: all that are not finished, and the last 100 finished ones of 30 days.
#[utoipa::path(get, path = "/devices/{device}/commands", operation_id = "listCommands", tag = "commands",
    params(DeviceParam, Page), responses((status = 200, body = List<Execution>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<Execution>> {
    let request = ListCommandsRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        page_size: page.size(api.config.page_items_max)?.min(PAGE_MAX),
        page_token: page.page_token,
    };
    let listed = api.commands.call(async |mut client| client.list_commands(request).await).await?;
    let items = listed.commands.into_iter().map(|command| Execution::of(Some(command))).collect::<Result<_, _>>()?;
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// Sends a command. With `wait` the answer is 200 when the command is finished within it, else 202 as without.
///
/// Sent again under the same `Idempotency-Key`, as after no answer or a 503, it is the same command, sent once; 409 if name, payload
/// or timeout is another.
#[utoipa::path(post, path = "/devices/{device}/commands", operation_id = "sendCommand", tag = "commands",
    params(DeviceParam, Wait, KeyParam), request_body = CommandOrder,
    responses((status = 200, body = Execution, description = "It is finished, by the device or by its time."),
        (status = 202, body = Execution, description = "It is on its way.")))]
pub async fn send(
    State(api): State<Arc<Api>>,
    at: At,
    Params(Wait { wait }): Params<Wait>,
    Key(key): Key,
    Raw(order): Raw<CommandOrder>,
) -> Result<(StatusCode, Json<Execution>), Failure> {
    if let Some(wait) = wait.filter(|wait| *wait > WAIT_MAX) {
        return Err(ApiError::invalid("wait", "is too long").over(WAIT_MAX, wait).into());
    }
    let CommandOrder { name, payload, timeout } = order;
    if let Some(timeout) = timeout {
        in_range("timeout", timeout, TIMEOUT_MIN, TIMEOUT_MAX)?;
    }
    let started = Instant::now();
    let (id, idempotency_key) = match key {
        Some(key) => (Vec::new(), key.as_str().to_owned()),
        None => (api.new_id().0.to_vec(), String::new()),
    };
    let request = SendCommandRequest {
        tenant: at.tenant.to_string(),
        device: at.device()?.into(),
        name,
        payload: payload.map_or_else(Vec::new, |payload| payload.get().as_bytes().to_vec()),
        timeout_ms: timeout.map_or(0, drover_host::Duration::as_millis),
        id,
        hops: 0,
        idempotency_key,
    };
    let sent = api.commands.call(async |mut client| client.send_command(request).await).await.map_err(of_header)?;
    let sent = Execution::of(sent.command)?;
    let until = wait.map_or(started, |wait| started + wait.as_std());
    let execution = finished(&api, &at, sent, until).await?;
    let status = if wait.is_some() && execution.status.is_final() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(execution)))
}

/// What is wrong with a key is wrong with the header that it came by.
fn of_header(error: ApiError) -> ApiError {
    let name = |field: String| if field == KEY_FIELD { IDEMPOTENCY_KEY.to_owned() } else { field };
    ApiError { field: error.field.map(name), ..error }
}

/// One command.
#[utoipa::path(get, path = "/devices/{device}/commands/{command}", operation_id = "getCommand", tag = "commands",
    params(DeviceParam, CommandParam), responses((status = 200, body = Execution, description = "As it is now.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Execution> {
    let text = at.name("command")?;
    let id = RecordId::parse(text).ok_or_else(|| ApiError::invalid("command", "an id has 32 hexadecimal digits"))?;
    Ok(Json(find(&api, &at, id).await?))
}

async fn find(api: &Api, at: &At, id: RecordId) -> Result<Execution, ApiError> {
    let (tenant, device) = (at.tenant.to_string(), at.device()?.into());
    let request = GetCommandRequest { tenant, device, id: id.0.to_vec() };
    Execution::of(api.commands.call(async |mut client| client.get_command(request).await).await?.command)
}

/// The command when it is finished, or as it is at `until`; what fails meanwhile is asked again, for the command is on its way.
async fn finished(api: &Api, at: &At, mut execution: Execution, until: Instant) -> Result<Execution, ApiError> {
    let (id, mut look) = (execution.id, FIRST_LOOK);
    while !execution.status.is_final() && Instant::now() < until {
        tokio::select! {
            biased;
            () = api.shutdown.cancelled() => break,
            () = tokio::time::sleep_until((Instant::now() + look).min(until)) => {}
        }
        look = (look * 2).min(LONGEST_LOOK);
        match find(api, at, id).await {
            Ok(found) => execution = found,
            Err(error) => tracing::debug!(%error, "a command that is waited for cannot be read"),
        }
    }
    Ok(execution)
}
