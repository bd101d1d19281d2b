//! What the gateway decides by itself: the declared shape of objects, and which records a live stream shows.

pub mod declared;
pub mod live;
pub mod status;
pub mod tail;
