//! The rules service alone, through its public interface: records in, records out.

mod actions;
mod bad_input;
mod commands;
mod damage;
mod faults;
mod functions;
mod lookups;
mod mail;
mod mail_server;
mod outputs;
mod replay;
mod republish;
mod target;
mod topics;
mod windows;
mod world;
