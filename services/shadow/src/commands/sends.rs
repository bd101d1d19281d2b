//! New commands: into the log, and on until the store says what became of them there.
//!
//! Whichever replica owns the partition: who sends looks into the store until that has passed the record.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{AppendError, Bus, Position};
use drover_types::limits::COMMANDS_OPEN_PER_DEVICE_MAX;
use drover_types::{ApiError, DeviceKey, ErrorCode, RecordId};
use tokio::sync::Semaphore;

use crate::domain::command::{Execution, Head, NewCommand, new_record};
use crate::looks::Looks;
use crate::ports::{Store, StoreError};

/// Commands that wait for the store at the same time; more wait for their turn.
const WAITING_MAX: usize = 256;
/// First and longest pause between two looks into the store.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LONGEST_LOOK: Duration = Duration::from_millis(200);
/// Wait before an append is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// Sends commands.
pub struct Sends {
    bus: Arc<dyn Bus>,
    store: Arc<dyn Store>,
    deadline: Duration,
    turns: Semaphore,
}

impl Sends {
    /// Each is given up at its `deadline`.
    pub fn new(bus: Arc<dyn Bus>, store: Arc<dyn Store>, deadline: Duration) -> Self {
        Self { bus, store, deadline, turns: Semaphore::new(WAITING_MAX) }
    }

    /// Makes the command durable; as the store has it. `DEADLINE_EXCEEDED`: it may be sent yet.
    pub async fn send(&self, command: &NewCommand) -> Result<Execution, ApiError> {
        let sending = async {
            let _turn = self.turns.acquire().await;
            let position = self.append(command).await?;
            self.folded(&command.device, command.id, &position).await
        };
        let late = || {
            let message =
                format!("command {} is not known to be taken within {:?}: it may yet be", command.id, self.deadline);
            ApiError::new(ErrorCode::DeadlineExceeded, message)
        };
        tokio::time::timeout(self.deadline, sending).await.map_err(|_| late())?
    }

    /// Appends until it is durable: a repeat is recognised by its id.
    async fn append(&self, command: &NewCommand) -> Result<Position, ApiError> {
        let outgoing = new_record(command);
        loop {
            let failure = match self.bus.append(vec![outgoing.clone()]).await {
                Ok(receipt) => match receipt.await {
                    Ok(positions) => {
                        let position = positions.into_iter().next();
                        return position.ok_or_else(|| unavailable("the log has not said where the command is"));
                    }
                    Err(error) => error.to_string(),
                },
                Err(error @ AppendError::Unavailable { .. }) => error.to_string(),
                Err(
                    error @ (AppendError::UnknownTopic { .. }
                    | AppendError::UnknownPartition { .. }
                    | AppendError::Refused { .. }
                    | AppendError::TooLarge { .. }),
                ) => return Err(unavailable(error)),
            };
            tracing::debug!(failure, "a command is not in the log yet");
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// What became of the record at `position`.
    async fn folded(&self, device: &DeviceKey, id: RecordId, position: &Position) -> Result<Execution, ApiError> {
        let mut looks = Looks::new(FIRST_LOOK, LONGEST_LOOK);
        loop {
            match self.looked(device, id, position).await {
                Ok(Some(execution)) => return Ok(execution),
                Ok(None) => {}
                // The command is in the log: whoever sent it is told what became of it, or that the time is over.
                Err(Unfolded::Store(error)) => tracing::debug!(%error, "what became of a command is looked at again"),
                Err(Unfolded::Refused) => return Err(too_many(COMMANDS_OPEN_PER_DEVICE_MAX)),
            }
            looks.pause().await;
        }
    }

    /// The command, if the store has it by now.
    async fn looked(
        &self,
        device: &DeviceKey,
        id: RecordId,
        position: &Position,
    ) -> Result<Option<Execution>, Unfolded> {
        // Before the command: what the store has passed, it has.
        let next = self.store.commands_next(position.at.partition).await?.unwrap_or_default();
        let heads = self.store.command_heads(device).await?;
        let found = find(&*self.store, device, id, &heads).await?;
        if found.is_none() && next > position.offset { Err(Unfolded::Refused) } else { Ok(found) }
    }
}

/// Why a command that is in the log is not in the store.
enum Unfolded {
    Store(StoreError),
    Refused,
}

impl From<StoreError> for Unfolded {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A command among those of its device.
pub async fn find(
    store: &dyn Store,
    device: &DeviceKey,
    id: RecordId,
    heads: &[Head],
) -> Result<Option<Execution>, StoreError> {
    let Some(head) = heads.iter().find(|head| head.id == id) else { return Ok(None) };
    let body = store.command_body(device, head).await?;
    Ok(body.map(|body| Execution { head: head.clone(), body }))
}

/// The refusal where `open` commands are.
pub fn too_many(open: usize) -> ApiError {
    let message = "the device has too many commands that are not finished";
    let error = ApiError::new(ErrorCode::ResourceExhausted, message);
    ApiError { field: Some("device".to_owned()), ..error }.over(COMMANDS_OPEN_PER_DEVICE_MAX, open + 1)
}

fn unavailable(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, error.to_string())
}
