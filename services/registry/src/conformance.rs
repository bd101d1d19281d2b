//! The suite that every store adapter must pass.
