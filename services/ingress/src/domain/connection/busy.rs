//! What a connection has only while something is going on: what it is to write, what it wants done, and who it may be.
//!
//! Most connections are idle, and memory is the product: they have none of it.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::{Claims, Connection, Effect};
use crate::domain::identity::Certificate;

#[derive(Default)]
pub(super) struct Busy {
    output: BytesMut,
    effects: VecDeque<Effect>,
    /// From its CONNECT until it is admitted.
    pub(super) claims: Option<Box<Claims>>,
    /// What its client has shown in the handshake, until its CONNECT.
    pub(super) certificate: Option<Box<Certificate>>,
}

impl Connection {
    pub(super) fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Wants something done, after all else.
    pub(super) fn want(&mut self, effect: Effect) {
        self.busy().effects.push_back(effect);
    }

    /// The next effect to carry out. Without one nothing is kept for those to come.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let next = self.busy.as_mut().and_then(|busy| busy.effects.pop_front());
        if next.is_none() {
            self.tidy();
        }
        next
    }

    /// Bytes to write; the writer removes what it has written, and calls [`Connection::tidy`].
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.busy().output
    }

    /// How many bytes there are to write.
    pub fn output_bytes(&self) -> usize {
        self.busy.as_ref().map_or(0, |busy| busy.output.len())
    }

    /// Gives back the room of what is written and carried out.
    pub fn tidy(&mut self) {
        let Some(Busy { output, effects, claims, certificate }) = self.busy.as_deref_mut() else { return };
        if output.is_empty() && effects.is_empty() && claims.is_none() && certificate.is_none() {
            self.busy = None;
            return;
        }
        if output.is_empty() && output.capacity() > 0 {
            *output = BytesMut::new();
        }
        if effects.is_empty() && effects.capacity() > 0 {
            *effects = VecDeque::new();
        }
    }

    /// Who a client that was not admitted says it is.
    pub fn claims(&self) -> Option<&Claims> {
        self.busy.as_ref()?.claims.as_deref()
    }

    /// Whether nothing is kept for what is to come.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.busy.is_none()
    }
}
