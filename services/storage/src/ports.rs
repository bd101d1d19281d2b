//! What the domain needs from outside, with the promises it relies on.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use drover_types::{ApiError, DeviceId, DeviceKey, ErrorCode, TenantId};

use crate::series::{Entry, Field, Message, Place, Point, Series};

/// How much one read brings: it ends with whichever comes first, but brings at least one row if there is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rows: usize,
    /// Bytes of rows as [`Point::bytes`] and [`Message::bytes`] count them; passed by less than one row.
    pub bytes: usize,
}

/// Rows, and where the first of those stands that were left out; `None`: these were all.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T, N> {
    pub rows: Vec<T>,
    pub next: Option<N>,
}

/// What one step of [`SeriesStore::expire`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Rows removed.
    pub rows: u64,
    /// Where the next step goes on; `None`: everything was looked at.
    pub next: Option<Vec<u8>>,
}

/// Why the store did not do it. What was to be stored may be there or not, in part as well: store it again. A later
/// call works when the cause is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store of time series has no space left: {reason}")]
    Full { reason: String },
    #[error("the store of time series is unavailable: {reason}")]
    Unavailable { reason: String },
    #[error("the store of time series is damaged: {reason}")]
    Corrupt { reason: String },
}

/// Points and messages of devices.
///
/// Reads see every write that returned before they began. Every call may be made concurrently and dropped at any
/// point.
#[async_trait]
pub trait SeriesStore: Send + Sync + 'static {
    /// Keeps messages and their points; durable when it returns. What is known by device and place is kept once,
    /// however often it is stored and in whatever order.
    async fn store(&self, batch: Arc<Vec<Entry>>) -> Result<(), StoreError>;

    /// The point with the last place of each field of a device, ordered by the bytes of the fields, from the field
    /// `from` on (empty: from the first).
    async fn newest(&self, device: &DeviceKey, from: &str, limit: Limit) -> Result<Page<Point, Field>, StoreError>;

    /// Points of a series from the place `from` on and before the time `to_ms`, in the order of their places.
    async fn points(
        &self,
        series: &Series,
        from: Place,
        to_ms: u64,
        limit: Limit,
    ) -> Result<Page<Point, Place>, StoreError>;

    /// Points of a series from the time `from_ms` on and up to the place `last`, that one among them, from the last to the
    /// first.
    async fn points_back(
        &self,
        series: &Series,
        from_ms: u64,
        last: Place,
        limit: Limit,
    ) -> Result<Page<Point, Place>, StoreError>;

    /// Messages of a device from the time `from_ms` on and up to the place `last`, that one among them, from the last
    /// to the first.
    async fn messages(
        &self,
        device: &DeviceKey,
        from_ms: u64,
        last: Place,
        limit: Limit,
    ) -> Result<Page<Message, Place>, StoreError>;

    /// When the last message came that the device itself has sent, milliseconds since the Unix epoch, where the store keeps
    /// that apart from messages. `None`: it does not, or not yet for this device, and messages tell it.
    async fn heard(&self, _device: &DeviceKey) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Devices of a tenant of which messages are kept, each once, in an order of the store's own; from where the page before
    /// ended. Of a store that forgets by itself also some of which nothing is kept any more.
    async fn devices(
        &self,
        tenant: &TenantId,
        from: Option<Vec<u8>>,
        rows: usize,
    ) -> Result<Page<DeviceId, Vec<u8>>, StoreError>;

    /// Removes some of what stands before the time `before_ms`, the newest points among them; goes on from where the
    /// step before ended. A store that forgets by itself does nothing. What is removed need not be durably so.
    async fn expire(&self, before_ms: u64, from: Option<Vec<u8>>) -> Result<Expired, StoreError>;
}

/// A device of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    pub name: String,
    /// Empty: none.
    pub device_type: String,
    pub enabled: bool,
    pub labels: BTreeMap<String, String>,
}

impl Registered {
    /// Bytes of its name, type and labels.
    pub fn bytes(&self) -> usize {
        let labels = self.labels.iter().map(|(name, value)| name.len() + value.len());
        self.name.len() + self.device_type.len() + labels.sum::<usize>()
    }
}

/// Where the registry's devices come from.
#[async_trait]
pub trait DeviceList: Send + Sync + 'static {
    /// A page of a tenant's devices, and the token of the next; an empty token is that of the first, and told behind the
    /// last. Ends within seconds, whatever the registry does: with `unavailable`, if with nothing else.
    async fn page(&self, tenant: &TenantId, token: &str) -> Result<(Vec<Registered>, String), ApiError>;
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match &error {
            StoreError::Full { .. } => ErrorCode::ResourceExhausted,
            StoreError::Unavailable { .. } => ErrorCode::Unavailable,
            StoreError::Corrupt { .. } => ErrorCode::DataLoss,
        };
        ApiError::new(code, error.to_string())
    }
}
