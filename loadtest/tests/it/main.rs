//! The client driver, the load generator and scenarios: against a small server that can be told to misbehave, against
//! mosquitto and `drover up` where they are there.

mod chaos;
mod coap;
mod driver;
mod faults;
mod gateway;
mod generator;
mod mosquitto;
mod remote;
mod runs;
mod scenarios;
mod server;
