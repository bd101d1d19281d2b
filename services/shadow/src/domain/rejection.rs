//! Why a request is rejected: AWS IoT's codes and messages.

use drover_types::limits::{
    CLIENT_TOKEN_BYTES_MAX, SHADOW_DEPTH_MAX, SHADOW_STATE_BYTES_MAX, SHADOW_VALUES_MAX, SHADOWS_PER_DEVICE_MAX,
};

/// Why nothing was changed or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("Invalid JSON")]
    Json,
    #[error("Missing required node: state")]
    StateMissing,
    #[error("State node must be an object")]
    StateNotObject,
    #[error("Desired node must be an object")]
    DesiredNotObject,
    #[error("Reported node must be an object")]
    ReportedNotObject,
    #[error("State contains an invalid node: '{node}'")]
    Node { node: String },
    #[error("Invalid version")]
    Version,
    #[error("Invalid clientToken: it is a string of at most {CLIENT_TOKEN_BYTES_MAX} bytes")]
    ClientToken,
    #[error("JSON contains too many levels of nesting; maximum is {SHADOW_DEPTH_MAX}")]
    TooDeep,
    #[error("The device has {SHADOWS_PER_DEVICE_MAX} shadows, maximum is {SHADOWS_PER_DEVICE_MAX}")]
    TooManyShadows,
    #[error("No shadow exists with name: '{name}'")]
    NotFound { name: String },
    #[error("Version conflict")]
    Conflict,
    #[error("The state has {bytes} bytes, maximum is {SHADOW_STATE_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("The state has {values} values, maximum is {SHADOW_VALUES_MAX}")]
    TooManyValues { values: usize },
    #[error("Unsupported document encoding; supported encoding is UTF-8")]
    Encoding,
}

impl Rejection {
    /// The `code` of the answer: that of the HTTP status AWS would answer with.
    pub fn code(&self) -> u16 {
        match self {
            Rejection::Json
            | Rejection::StateMissing
            | Rejection::StateNotObject
            | Rejection::DesiredNotObject
            | Rejection::ReportedNotObject
            | Rejection::Node { .. }
            | Rejection::Version
            | Rejection::ClientToken
            | Rejection::TooDeep
            | Rejection::TooManyShadows => 400,
            Rejection::NotFound { .. } => 404,
            Rejection::Conflict => 409,
            Rejection::TooLarge { .. } | Rejection::TooManyValues { .. } => 413,
            Rejection::Encoding => 415,
        }
    }
}
