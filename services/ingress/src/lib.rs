//! MQTT in, log out; and back to the subscribers.
