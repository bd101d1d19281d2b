//! The suite every Bus adapter must pass.
