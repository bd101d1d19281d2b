//! Events: what people are told about an object, beside its conditions.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

use super::MANAGER;
use super::kind::Kind;

/// Longest note that the API server takes, in bytes.
const NOTE_BYTES_MAX: usize = 1_000;

/// Tells Events. One that cannot be told is logged only: nothing depends on it.
pub struct Events(Recorder);

impl Events {
    /// Events of the process `identity`.
    pub fn new(client: Client, identity: String) -> Self {
        Self(Recorder::new(client, Reporter { controller: MANAGER.to_owned(), instance: Some(identity) }))
    }

    /// Something went as it should that people want to know of.
    pub async fn normal<K: Kind>(&self, object: &K, reason: &str, note: String) {
        self.tell(object, EventType::Normal, reason, note).await;
    }

    /// Something is not as it should be.
    pub async fn warning<K: Kind>(&self, object: &K, reason: &str, note: String) {
        self.tell(object, EventType::Warning, reason, note).await;
    }

    async fn tell<K: Kind>(&self, object: &K, type_: EventType, reason: &str, mut note: String) {
        note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
        let (reason, action) = (reason.to_owned(), "Reconcile".to_owned());
        let event = Event { type_, reason, note: Some(note), action, secondary: None };
        if let Err(error) = self.0.publish(&event, &Resource::object_ref(object, &())).await {
            tracing::warn!(kind = K::NAME, reason = event.reason, %error, "event not told");
        }
    }
}
