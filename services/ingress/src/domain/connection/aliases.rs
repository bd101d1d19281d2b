//! Topic aliases that the server sets (MQTT 5 section 3.3.2.3.4).
//!
//! The first topics of a connection get one each, for its whole life: a device hears few topics, again and again.

use std::num::NonZeroU16;

/// An alias takes as many bytes as a topic of this length: shorter topics get none.
const TOPIC_BYTES_MIN: usize = 4;

/// The aliases of one connection.
#[derive(Debug)]
pub(super) struct Aliases {
    /// Most that the client takes [MQTT-3.1.2-26, MQTT-3.1.2-27], and that this node keeps.
    max: usize,
    topics: Vec<Box<str>>,
}

/// What an alias is to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alias {
    /// The client knows what it stands for.
    Known(NonZeroU16),
    /// It is to be sent with the topic, and then to be set.
    Free(NonZeroU16),
}

impl Alias {
    pub fn get(self) -> NonZeroU16 {
        match self {
            Alias::Known(alias) | Alias::Free(alias) => alias,
        }
    }
}

impl Aliases {
    /// `None` if the client takes no aliases.
    pub fn new(client_max: u16, limit: u16) -> Option<Box<Self>> {
        let max = usize::from(client_max.min(limit));
        (max > 0).then(|| Box::new(Self { max, topics: Vec::new() }))
    }

    /// The alias for a message to `topic`, if it has or gets one.
    pub fn find(&self, topic: &str) -> Option<Alias> {
        if let Some(at) = self.topics.iter().position(|known| **known == *topic) {
            return number(at).map(Alias::Known);
        }
        let free = self.topics.len() < self.max && topic.len() >= TOPIC_BYTES_MIN;
        free.then(|| number(self.topics.len()).map(Alias::Free)).flatten()
    }

    /// The client has been told the free alias of `topic`.
    pub fn set(&mut self, topic: &str) {
        self.topics.push(topic.into());
    }
}

fn number(at: usize) -> Option<NonZeroU16> {
    u16::try_from(at + 1).ok().and_then(NonZeroU16::new)
}
