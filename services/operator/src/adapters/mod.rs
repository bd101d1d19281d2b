//! The ports over gRPC.

mod backend;
mod convert;
mod registry;
mod rules;
mod shadow;

pub use registry::GrpcRegistry;
pub use rules::GrpcRules;
pub use shadow::GrpcShadows;
