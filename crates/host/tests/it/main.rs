//! Calls between processes, over real sockets and over other wires.

mod remote;
mod service;
mod skew;
mod wires;
