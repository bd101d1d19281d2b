//! HTTP as every service of ours speaks it: one error shape, bounded bodies and connections, a wall against foreign
//! web pages, and one listener for the routes of several services of a process.
//!
//! Knows no route of anybody.

mod body;
mod failure;
mod guard;
mod secure;
mod serve;
mod shared;
mod unread;
mod upgrade;

pub use body::{Body, read};
pub use failure::Failure;
pub use guard::{Hosts, is_cross_site, refuse_foreign};
pub use secure::{OverTls, Secure, serve_tls};
pub use serve::{Bounds, Ends, serve, serve_over};
pub use shared::SharedRoutes;
pub use upgrade::Upgrade;
