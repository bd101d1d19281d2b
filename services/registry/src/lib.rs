//! Devices, credentials, policies, rules and presence.
