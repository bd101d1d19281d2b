//! What a record of the log changes of the commands that a store has.

use bytes::Bytes;
use drover_bus::Offset;
use drover_types::{DeviceKey, RecordId};

use super::execution::{Answered, Body, Execution, Head, Slot};

/// What one record changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub device: DeviceKey,
    /// Of the record.
    pub offset: Offset,
    pub slot: Slot,
    pub what: What,
}

/// What becomes of the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Another command is there from now on.
    Create(Box<Execution>),
    /// The command there, `id`, was answered.
    Answer { id: RecordId, answered: Answered, response: Bytes },
    /// Nothing is there any more.
    Forget,
}

impl Change {
    /// What is in the place when `former` was: of an answer to another command nothing changes. For stores that read before they
    /// write.
    pub fn applied(&self, former: Option<(Head, Body)>) -> Option<(Head, Body)> {
        match &self.what {
            What::Create(execution) => Some((execution.head.clone(), execution.body.clone())),
            What::Forget => None,
            What::Answer { id, answered, response } => former.map(|(head, body)| {
                if head.id != *id {
                    return (head, body);
                }
                (Head { answered: Some(*answered), ..head }, Body { response: response.clone(), ..body })
            }),
        }
    }
}
