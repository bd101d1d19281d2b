//! Keeps rows of rules, with no more fields than their device may have.
//!
//! What is known of devices is this service's own: the ingest, which may be another process, counts what messages bring.
//! Each asks the store first, so a device that is named by both at once has twice as many fields at most.

use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_types::Clock;

use crate::domain::KnownFields;
use crate::ingest::fields_of;
use crate::ports::{SeriesStore, StoreError};
use crate::series::Entry;

/// The way of rows into the store.
pub struct Rows {
    store: Arc<dyn SeriesStore>,
    clock: Arc<dyn Clock>,
    fields_per_device_max: usize,
    known: Mutex<KnownFields>,
}

impl Rows {
    /// Nothing is known of any device yet.
    pub fn new(store: Arc<dyn SeriesStore>, clock: Arc<dyn Clock>, fields_per_device_max: usize) -> Self {
        let known = Mutex::new(KnownFields::new(fields_per_device_max));
        Self { store, clock, fields_per_device_max, known }
    }

    /// Returns when the row is durable; values of further fields are in its message only.
    pub async fn keep(&self, mut entry: Entry) -> Result<(), StoreError> {
        let now_ms = self.clock.now_ms();
        let unread = self.known().unread(slice::from_ref(&entry), now_ms);
        for device in unread {
            let (device, fields) = fields_of(Arc::clone(&self.store), device, self.fields_per_device_max).await?;
            self.known().learn(device, &fields, now_ms);
        }
        let refused = self.known().refuse(&entry);
        // From the last to the first: those before keep their places.
        for place in refused.into_iter().rev() {
            entry.values.remove(place);
        }
        self.store.store(Arc::new(vec![entry])).await
    }

    fn known(&self) -> MutexGuard<'_, KnownFields> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
