//! The one executable: services, up, and the command line.
