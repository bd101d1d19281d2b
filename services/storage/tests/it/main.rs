//! The storage service alone: records into the log, questions over gRPC, and processes that are killed.

mod answers;
mod crash;
mod keeping;
mod stage;
