//! Calls between processes, over real sockets.

mod remote;
mod service;
mod skew;
