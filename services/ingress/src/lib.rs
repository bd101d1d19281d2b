//! MQTT in, log out; and back to the subscribers.

pub mod domain;
