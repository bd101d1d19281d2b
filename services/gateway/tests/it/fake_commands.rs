//! A service of commands of a few lines, behind the real gRPC code.

use std::sync::Mutex;

use drover_proto::shadow::v1::commands_server::Commands;
use drover_proto::shadow::v1::*;
use drover_proto::to_status;
use drover_types::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// Keeps what was sent. Commands named `quick` are answered by their device when they are looked at for the second time.
#[derive(Default)]
pub struct FakeCommands(Mutex<Vec<(String, Command, u32)>>);

/// The id of a command with a key.
fn named(key: &str) -> Vec<u8> {
    key.bytes().chain(std::iter::repeat(0)).take(16).collect()
}

#[tonic::async_trait]
impl Commands for FakeCommands {
    async fn send_command(&self, request: Request<SendCommandRequest>) -> Answer<SendCommandResponse> {
        let request = request.into_inner();
        let SendCommandRequest { tenant, device, name, payload, timeout_ms, id, hops, idempotency_key } = request;
        let payload = if payload.is_empty() { b"null".to_vec() } else { payload };
        let id = if idempotency_key.is_empty() { id } else { named(&idempotency_key) };
        assert_eq!((id.len(), hops), (16, 0), "it may have to be asked again");
        if let Some((.., there, _)) = self.0.lock().unwrap().iter().find(|(.., command, _)| command.id == id) {
            if (&there.name, &there.payload) == (&name, &payload) {
                return Ok(Response::new(SendCommandResponse { command: Some(there.clone()) }));
            }
            let taken = ApiError::new(ErrorCode::AlreadyExists, "another command has the id");
            return Err(to_status(&ApiError { field: Some("idempotency_key".to_owned()), ..taken }));
        }
        let status = CommandStatus::Queued.into();
        let (created_ms, expires_ms) = (1_000, 1_000 + if timeout_ms == 0 { 60_000 } else { timeout_ms });
        let command = Command { id, device, name, payload, status, created_ms, expires_ms, ..Command::default() };
        self.0.lock().unwrap().push((tenant, command.clone(), 0));
        Ok(Response::new(SendCommandResponse { command: Some(command) }))
    }

    async fn get_command(&self, request: Request<GetCommandRequest>) -> Answer<GetCommandResponse> {
        let GetCommandRequest { tenant, device, id } = request.into_inner();
        let mut sent = self.0.lock().unwrap();
        let found =
            sent.iter_mut().find(|(of, command, _)| *of == tenant && command.device == device && command.id == id);
        let missing = || to_status(&ApiError::new(ErrorCode::NotFound, "there is no such command"));
        let (_, command, looks) = found.ok_or_else(missing)?;
        *looks += 1;
        if command.name == "quick" && *looks > 1 {
            command.status = CommandStatus::Succeeded.into();
            (command.status_code, command.response) = (200, b"done".to_vec());
        }
        Ok(Response::new(GetCommandResponse { command: Some(command.clone()) }))
    }

    async fn list_commands(&self, request: Request<ListCommandsRequest>) -> Answer<ListCommandsResponse> {
        let request = request.into_inner();
        let sent = self.0.lock().unwrap();
        let of_device =
            sent.iter().filter(|(of, command, _)| *of == request.tenant && command.device == request.device);
        let commands: Vec<_> =
            of_device.map(|(_, command, _)| command.clone()).take(request.page_size as usize).collect();
        Ok(Response::new(ListCommandsResponse { commands, next_page_token: "more".to_owned() }))
    }
}
