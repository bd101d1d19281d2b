//! The codec and the client seen from outside: properties over generated packets, the specification's statements, and
//! two other implementations as oracles.

mod client;
mod generate;
mod normative;
mod oracle;
mod properties;
