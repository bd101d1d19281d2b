//! The rule language: parse, compile, evaluate; without I/O.
