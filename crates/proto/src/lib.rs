//! gRPC services and bus messages, generated from `proto/`, and their conversions to `drover-types`.
//!
//! Wire layer: no decisions; a conversion checks shape only and names the field it refuses.

mod convert;
mod idempotent;
mod status;

pub use convert::Field;
pub use idempotent::is_idempotent;
pub use status::{from_status, to_status};

/// Descriptors of every message and service, an encoded `google.protobuf.FileDescriptorSet`; for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Declared objects and identities.
pub mod types {
    pub mod v1 {
        tonic::include_proto!("drover.types.v1");
    }
}

/// The registry's service and its change feed.
pub mod registry {
    pub mod v1 {
        tonic::include_proto!("drover.registry.v1");
    }
}

/// The rules service and its outbox.
pub mod rules {
    pub mod v1 {
        tonic::include_proto!("drover.rules.v1");
    }
}

/// The ingress service and presence reports.
pub mod ingress {
    pub mod v1 {
        tonic::include_proto!("drover.ingress.v1");
    }
}

/// The shadow service.
pub mod shadow {
    pub mod v1 {
        tonic::include_proto!("drover.shadow.v1");
    }
}

/// The storage service.
pub mod storage {
    pub mod v1 {
        tonic::include_proto!("drover.storage.v1");
    }
}
