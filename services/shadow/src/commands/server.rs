//! gRPC of commands: decodes, asks the store or the log, encodes.

use std::sync::Arc;

use drover_proto::shadow::v1 as wire;
use drover_proto::shadow::v1::commands_server::Commands;
use drover_types::command::{CommandKey, CommandName};
use drover_types::limits::{
    COMMAND_PAYLOAD_BYTES_MAX, COMMAND_TIMEOUT_MS, COMMAND_TIMEOUT_MS_MAX, COMMAND_TIMEOUT_MS_MIN, REPUBLISH_HOPS_MAX,
};
use drover_types::{ApiError, Clock, DeviceKey, ErrorCode, RecordId, in_range};
use serde_json::value::RawValue;
use tonic::{Request, Response, Status};

use super::sends::{Sends, find, too_many};
use crate::domain::command::{Body, Execution, Head, NewCommand, Status as State, keyed_id, room, shown};
use crate::ports::Store;
use crate::server::{answer, device_key, record_id};

/// Fields of a request that name its command.
const ID: &str = "id";
const KEY: &str = "idempotency_key";
/// Most commands of one page.
const PAGE_MAX: u32 = 100;
/// A page with more bytes of payloads and answers ends, below the 4 MiB that a message of gRPC may have.
const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// The service `drover.shadow.v1.Commands`.
pub struct CommandServer {
    pub store: Arc<dyn Store>,
    pub sends: Sends,
    pub clock: Arc<dyn Clock>,
}

impl CommandServer {
    async fn send(&self, request: wire::SendCommandRequest) -> Result<wire::Command, ApiError> {
        let field = if request.idempotency_key.is_empty() { ID } else { KEY };
        let command = self.read(request)?;
        let heads = self.store.command_heads(&command.device).await?;
        if let Some(there) = find(&*self.store, &command.device, command.id, &heads).await? {
            return self.again(field, &command, there);
        }
        room(&heads, command.created_ms).map_err(too_many)?;
        let sent = self.sends.send(&command).await?;
        self.again(field, &command, sent)
    }

    /// What is there under the id of `command`, if it is that; `field` has named it.
    fn again(&self, field: &str, command: &NewCommand, there: Execution) -> Result<wire::Command, ApiError> {
        if !command.is(&there) {
            let message = format!("another command has the id {}", command.id);
            return Err(ApiError { field: Some(field.to_owned()), ..ApiError::new(ErrorCode::AlreadyExists, message) });
        }
        Ok(told(&command.device, there, self.clock.now_ms()))
    }

    fn read(&self, request: wire::SendCommandRequest) -> Result<NewCommand, ApiError> {
        let wire::SendCommandRequest { tenant, device, name, payload, timeout_ms, id, hops, idempotency_key } = request;
        let bytes = payload.len();
        if bytes > COMMAND_PAYLOAD_BYTES_MAX {
            return Err(ApiError::invalid("payload", "payload is too large").over(COMMAND_PAYLOAD_BYTES_MAX, bytes));
        }
        let payload = if payload.is_empty() { b"null".to_vec() } else { payload };
        let payload: Box<RawValue> = serde_json::from_slice(&payload)
            .map_err(|error| ApiError::invalid("payload", format!("is not JSON: {error}")))?;
        let timeout_ms = if timeout_ms == 0 { COMMAND_TIMEOUT_MS } else { timeout_ms };
        in_range("timeout_ms", timeout_ms, COMMAND_TIMEOUT_MS_MIN, COMMAND_TIMEOUT_MS_MAX)?;
        in_range("hops", hops, 0, REPUBLISH_HOPS_MAX)?;
        let (device, created_ms) = (device_key(&tenant, &device)?, self.clock.now_ms());
        Ok(NewCommand {
            id: named(&device, &id, &idempotency_key)?,
            device,
            name: CommandName::new(&name).map_err(|error| ApiError::invalid("name", error.to_string()))?,
            created_ms,
            expires_ms: created_ms + timeout_ms,
            payload,
            hops,
        })
    }

    async fn get(&self, request: wire::GetCommandRequest) -> Result<wire::Command, ApiError> {
        let (device, id) = (device_key(&request.tenant, &request.device)?, record_id(&request.id)?);
        let now_ms = self.clock.now_ms();
        let heads = shown(self.store.command_heads(&device).await?, now_ms);
        let found = find(&*self.store, &device, id, &heads).await?;
        let missing = || ApiError::new(ErrorCode::NotFound, format!("command {id} does not exist"));
        Ok(told(&device, found.ok_or_else(missing)?, now_ms))
    }

    async fn list(&self, request: wire::ListCommandsRequest) -> Result<wire::ListCommandsResponse, ApiError> {
        let device = device_key(&request.tenant, &request.device)?;
        let size = if request.page_size == 0 { PAGE_MAX } else { request.page_size };
        in_range("page_size", size, 1, PAGE_MAX)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(read_token(token).ok_or_else(|| ApiError::invalid("page_token", "is none of this list"))?),
        };
        let now_ms = self.clock.now_ms();
        let heads = shown(self.store.command_heads(&device).await?, now_ms);
        let mut heads = heads.into_iter().filter(|head| after.is_none_or(|after| head.age() < after)).peekable();
        let (mut page, mut bytes, mut last) = (wire::ListCommandsResponse::default(), 0, None);
        while page.commands.len() < size as usize && bytes < PAGE_BYTES {
            let Some(head) = heads.next() else { break };
            last = Some(head.age());
            // Absent: another command has its place by now.
            let Some(body) = self.store.command_body(&device, &head).await? else { continue };
            bytes += body.payload.len() + body.response.len();
            page.commands.push(told(&device, Execution { head, body }, now_ms));
        }
        if heads.peek().is_some() {
            page.next_page_token = last.map(token).unwrap_or_default();
        }
        Ok(page)
    }
}

/// The id that a request gives its command, or that of the key that it names it by.
fn named(device: &DeviceKey, id: &[u8], key: &str) -> Result<RecordId, ApiError> {
    match (id, key) {
        (id, "") => record_id(id),
        ([], key) => Ok(keyed_id(device, &CommandKey::of_field(KEY, key)?)),
        _ => Err(ApiError::invalid(KEY, "a command has a key or an id, not both")),
    }
}

/// The token of the page behind a command: `MILLISECONDS-ID`.
fn token((created_ms, id): (u64, RecordId)) -> String {
    format!("{created_ms}-{id}")
}

fn read_token(token: &str) -> Option<(u64, RecordId)> {
    let (created_ms, id) = token.split_once('-')?;
    Some((created_ms.parse().ok()?, RecordId::parse(id)?))
}

fn told(device: &DeviceKey, execution: Execution, now_ms: u64) -> wire::Command {
    let Execution { head, body: Body { name, payload, response } } = execution;
    wire::Command {
        id: head.id.0.to_vec(),
        device: device.device.to_string(),
        name,
        payload: payload.into(),
        status: status(&head, now_ms).into(),
        status_code: head.answered.map_or(0, |answered| answered.code.into()),
        // One that came when the head had been read is told with its status, the next time.
        response: if head.answered.is_some() { response.into() } else { Vec::new() },
        created_ms: head.created_ms,
        expires_ms: head.expires_ms,
        updated_ms: head.updated_ms(now_ms),
    }
}

fn status(head: &Head, now_ms: u64) -> wire::CommandStatus {
    match head.status(now_ms) {
        State::Queued => wire::CommandStatus::Queued,
        State::Sent => wire::CommandStatus::Sent,
        State::InProgress => wire::CommandStatus::InProgress,
        State::Succeeded => wire::CommandStatus::Succeeded,
        State::Rejected => wire::CommandStatus::Rejected,
        State::Failed => wire::CommandStatus::Failed,
        State::TimedOut => wire::CommandStatus::TimedOut,
    }
}

#[tonic::async_trait]
impl Commands for CommandServer {
    async fn send_command(
        &self,
        request: Request<wire::SendCommandRequest>,
    ) -> Result<Response<wire::SendCommandResponse>, Status> {
        let sent = self.send(request.into_inner()).await;
        answer(sent.map(|command| wire::SendCommandResponse { command: Some(command) }))
    }

    async fn get_command(
        &self,
        request: Request<wire::GetCommandRequest>,
    ) -> Result<Response<wire::GetCommandResponse>, Status> {
        let found = self.get(request.into_inner()).await;
        answer(found.map(|command| wire::GetCommandResponse { command: Some(command) }))
    }

    async fn list_commands(
        &self,
        request: Request<wire::ListCommandsRequest>,
    ) -> Result<Response<wire::ListCommandsResponse>, Status> {
        answer(self.list(request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let age = (1_795_000_000_000, RecordId([9; 16]));
        assert_eq!(read_token(&token(age)), Some(age));
        for wrong in ["1", "x-09090909090909090909090909090909", "1-09"] {
            assert_eq!(read_token(wrong), None, "{wrong}");
        }
    }
}
