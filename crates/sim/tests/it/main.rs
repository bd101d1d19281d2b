//! The simulated bus keeps the promises of the port it stands in for.

use drover_bus::conformance::Fixture;
use drover_sim::{BusFaults, SimBus};

drover_bus::conformance_suite!(Fixture::new(std::sync::Arc::new(SimBus::new(1, BusFaults::default())), ()));
