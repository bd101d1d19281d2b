//! The tests that need several services at once.
