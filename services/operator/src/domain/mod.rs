//! All decisions of the operator: what is valid, and what has to be done.
//!
//! Domain layer, pure: what Kubernetes and the registry have comes as arguments, what is to be done goes out as values; no
//! calls, no clock.

pub mod admission;
pub mod authority;
pub mod condition;
pub mod credentials;
pub mod csv;
pub mod desired;
pub mod device;
pub mod fleet;
pub mod lease;
pub mod object;
pub mod problem;
pub mod rule;
pub mod secret;
pub mod span;
pub mod time;
