//! A peer whose lease has ended: it is away when its sessions are with the others, and what was on its way to it, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drover_types::Qos;

use super::{BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Condition, NOT_HEARD, Peer, Waiting};
use crate::domain::message::Message;
use crate::domain::peers::heirs::Heirs;
use crate::telemetry::Telemetry;

/// What became of a peer whose lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It is away, and the others have everything.
    Inherited,
    /// One of the others has heard it: what waits is with those that have sessions of it, and has to go to it as well.
    Returned,
    /// Nobody can have its sessions.
    Nothing,
}

impl Peer {
    /// Its lease has ended for `error` while `messages` were under way; `round` counts such ends.
    pub(super) async fn leave(
        &self,
        messages: &[Arc<Message>],
        error: &str,
        heirs: Heirs<'_>,
        round: &AtomicU64,
        telemetry: &Telemetry,
    ) -> Left {
        if !heirs.can() {
            return Left::Nothing;
        }
        // What it was to have is waited for still.
        self.ends(Condition::Leaving, error, telemetry);
        let (name, mut returned) = (self.name(), false);
        // One that has never answered is one of those that nobody here has heard.
        let gone = match &name {
            Some(name) => vec![name.clone()],
            None => heirs.unheard().await,
        };
        for gone in &gone {
            returned |= heirs.claim(gone).await;
        }
        let name = name.unwrap_or_else(|| NOT_HEARD.to_owned());
        {
            let mut state = self.state();
            // Who looks at it from now on and routes then, misses none of the sessions that were claimed.
            state.claimed = round.fetch_add(1, Ordering::AcqRel) + 1;
            state.has_left = !returned;
        }
        heirs.inherit(&name, &kept(messages)).await;
        if returned {
            let waiting = kept(self.state().waiting.iter().map(|waiting| &waiting.message));
            for part in parts(waiting) {
                heirs.inherit(&name, &part).await;
            }
            return Left::Returned;
        }
        // What its members had goes to others: those of sessions that were claimed among them.
        self.unplaced.add(self.held().lost());
        loop {
            let batch = self.next_left();
            if batch.is_empty() {
                return Left::Inherited;
            }
            let messages = kept(batch.iter().map(|waiting| &waiting.message));
            heirs.inherit(&name, &messages).await;
            self.give_back(batch);
        }
    }

    /// Hands to the heirs what was routed before they had the sessions of this peer, and came into its queue after that.
    pub(super) async fn bequeath_late(&self, batch: &[Waiting], heirs: Heirs<'_>) {
        let claimed = self.state().claimed;
        let late = batch.iter().filter(|waiting| waiting.round < claimed).map(|waiting| &waiting.message);
        let late: Vec<_> = late.collect();
        if !late.is_empty() {
            heirs.inherit(self.name().as_deref().unwrap_or(NOT_HEARD), &kept(late)).await;
        }
    }

    /// What waits, as much as a batch may have; with nothing it is away.
    fn next_left(&self) -> Vec<Waiting> {
        let mut state = self.state();
        if state.waiting.is_empty() {
            state.condition = Condition::Away;
        }
        state.take_batch()
    }
}

/// Those that absent sessions keep.
fn kept<'m>(messages: impl IntoIterator<Item = &'m Arc<Message>>) -> Vec<Arc<Message>> {
    messages.into_iter().filter(|message| message.telemetry.qos > Qos::AtMostOnce).cloned().collect()
}

/// The same in parts that fit into one call.
fn parts(messages: Vec<Arc<Message>>) -> Vec<Vec<Arc<Message>>> {
    let (mut parts, mut bytes) = (Vec::<Vec<_>>::new(), 0);
    for message in messages {
        bytes += message.bytes();
        match parts.last_mut() {
            Some(part) if part.len() < BATCH_MESSAGES_MAX && bytes <= BATCH_BYTES_MAX => part.push(message),
            Some(_) | None => {
                bytes = message.bytes();
                parts.push(vec![message]);
            }
        }
    }
    parts
}
