//! What the gateway decides by itself: the declared shape of objects, how commands are shown, which records a live stream shows, and what the
//! times of a query mean.

pub mod caller;
pub mod command;
pub mod declared;
pub mod live;
pub mod place;
pub mod series;
pub mod sessions;
pub mod span;
pub mod status;
pub mod tail;
