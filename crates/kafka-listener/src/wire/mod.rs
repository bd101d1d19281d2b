//! The wire: frames, the table of APIs, and the guard in front of the decoder.
//!
//! Protocol layer: bytes in, typed requests out; typed responses in, bytes out. Knows neither sockets nor the bus.

pub mod api;
pub mod frame;
#[cfg(test)]
pub mod samples;
pub mod shape;
#[cfg(test)]
mod tests;

/// Why a request could not be read. The connection is closed: without a readable header there is nobody to answer,
/// and Kafka brokers do the same.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("frame claims {bytes} bytes, allowed are 0 to {limit}")]
    FrameSize { bytes: i64, limit: usize },
    #[error("request of {bytes} bytes is shorter than its header")]
    Short { bytes: usize },
    #[error("api key {key} is not spoken here")]
    UnknownApi { key: i16 },
    #[error("version {version} of {api} is not spoken here, versions {min} to {max} are")]
    UnknownVersion { api: &'static str, version: i16, min: i16, max: i16 },
    #[error("{api} version {version} does not match its schema: {reason}")]
    Schema { api: &'static str, version: i16, reason: String },
}
