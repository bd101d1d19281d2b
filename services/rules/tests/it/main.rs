//! The rules service alone, through its public interface: records in, records out.

mod damage;
mod faults;
mod functions;
mod lookups;
mod outputs;
mod republish;
mod windows;
mod world;
