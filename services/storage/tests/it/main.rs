//! The storage service alone: records into the log, questions over gRPC, processes that are killed, and disks that fill up.

mod answers;
mod cassandra;
mod crash;
mod full_disk;
mod keeping;
mod sql;
mod stage;
