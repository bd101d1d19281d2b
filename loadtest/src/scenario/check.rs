//! Ranges of a scenario's values, and what two of them may not say together.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::{Fleet, INDEX, Network, Protocol, Publish, Scenario, ScenarioError, Timing, Value};
use crate::books::CONSUMERS_MAX;
use crate::worker::COAP_PAYLOAD_BYTES_MAX;

/// Devices of all fleets together.
const DEVICES_MAX: u64 = 10_000_000;
const SECONDS_MAX: u64 = 7 * 86_400;
const SPEED_MAX: u64 = 86_400;
/// Unacknowledged messages of a device.
const WINDOW_MAX: u16 = 1_000;
/// Payloads are padded up to this, in bytes.
const PAD_MAX: usize = 256 * 1024;
const DECIMALS_MAX: u8 = 9;
/// Subscriptions and answers of a device.
const FILTERS_MAX: usize = 100;
/// The slowest network, in milliseconds, and the worst.
const LAG_MS_MAX: u64 = 60_000;
const LOSS_MAX: f64 = 0.9;
/// Processes of a chaos run: each may have a network of its own.
const PROCESSES_MAX: usize = 64;
/// Gauges of the server that are looked at.
const BOUNDS_MAX: usize = 100;
/// The shortest gap between two messages of a device, in microseconds.
const EVERY_US_MIN: u64 = 100;

impl Scenario {
    /// Says what is out of range first, by the field's path.
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        within("duration (seconds)", self.duration.us().div_ceil(1_000_000), 1, SECONDS_MAX)?;
        within("settle (seconds)", self.settle.us() / 1_000_000, 0, 3_600)?;
        within("speed", self.speed, 1, SPEED_MAX)?;
        within("number of fleets", self.fleets.len(), 1, 100)?;
        within("number of devices", self.devices(), 1, DEVICES_MAX)?;
        within("target.connections_per_source", self.target.connections_per_source, 1, 28_000)?;
        let names: BTreeSet<&str> = self.fleets.iter().map(|fleet| fleet.name.as_str()).collect();
        require(names.len() == self.fleets.len(), "fleet.name", "one fleet's only", "another's as well")?;
        for fleet in &self.fleets {
            self.check_fleet(fleet)?;
        }
        for storm in &self.storms {
            let is_in_time = storm.at.us().saturating_add(storm.away.us()) < self.duration.us();
            require(is_in_time, "storm.at", "before the end of `duration` by more than `away`", storm.at)?;
            for name in &storm.fleets {
                require(names.contains(name.as_str()), "storm.fleets", "names of fleets", name)?;
            }
        }
        within("number of bounds", self.bounds.len(), 0, BOUNDS_MAX)?;
        for bound in &self.bounds {
            require(bound.is_readable(), "bound.metric", "NAME or NAME{LABEL=\"VALUE\",…}", &bound.metric)?;
            let is_number = bound.at_most.is_finite() && bound.at_most >= 0.0;
            require(is_number, "bound.at_most", "a number, at least 0", bound.at_most)?;
        }
        self.check_books()
    }

    fn check_books(&self) -> Result<(), ScenarioError> {
        let subscribers = self.fleets.iter().filter(|fleet| !fleet.subscribe.is_empty());
        let consumers = subscribers.map(|fleet| u64::from(fleet.devices)).sum::<u64>() + self.readers.len() as u64;
        if self.ledger {
            within("number of subscribers and readers with `ledger`", consumers, 1, CONSUMERS_MAX as u64)?;
        }
        require(self.ledger || self.readers.is_empty(), "reader", "absent where `ledger` is not set", "there")?;
        let of_fleets = self.fleets.iter().flat_map(|fleet| &fleet.promised);
        for name in of_fleets.chain(self.readers.iter().flat_map(|reader| &reader.promised)) {
            let is_fleet = self.fleets.iter().any(|fleet| fleet.name == *name);
            require(is_fleet, "promised", "names of fleets", name)?;
        }
        for reader in &self.readers {
            require(!reader.command.is_empty(), "reader.command", "a program with its arguments", "empty")?;
        }
        self.check_chaos()
    }

    fn check_chaos(&self) -> Result<(), ScenarioError> {
        let chaos = &self.chaos;
        within("number of chaos.process", chaos.processes.len(), 0, PROCESSES_MAX)?;
        let names: BTreeSet<&str> = chaos.processes.iter().map(|process| process.name.as_str()).collect();
        require(names.len() == chaos.processes.len(), "chaos.process.name", "one process's only", "another's as well")?;
        for process in &chaos.processes {
            require(!process.command.is_empty(), "chaos.process.command", "a program with its arguments", "empty")?;
            let is_file_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let is_plain = !process.name.is_empty() && process.name.chars().all(is_file_name);
            require(is_plain, "chaos.process.name", "made of letters, digits, - and _", &process.name)?;
        }
        for (name, commands) in [("chaos.before", &chaos.before), ("chaos.setup", &chaos.setup)] {
            require(!commands.iter().any(Vec::is_empty), name, "programs with their arguments", "empty")?;
        }
        require(!chaos.faults.is_empty(), "chaos.faults", "at least one kind", "empty")?;
        within("chaos.disk_mib", chaos.disk_mib, 16, 65_536)?;
        within("chaos.every (ms)", chaos.every.us() / 1_000, 100, 3_600_000)?;
        within("chaos.longest (ms)", chaos.longest.us() / 1_000, 100, 600_000)
    }

    fn check_fleet(&self, fleet: &Fleet) -> Result<(), ScenarioError> {
        let field = |name: &str| format!("fleet {}: {name}", fleet.name);
        within(&field("devices"), fleet.devices, 1, 10_000_000)?;
        let is_numbered = fleet.devices == 1 || fleet.device.contains(INDEX);
        require(is_numbered, &field("device"), "a name with {i}, as there are several devices", &fleet.device)?;
        within(&field("keep_alive (seconds)"), fleet.keep_alive.us() / 1_000_000, 0, u64::from(u16::MAX))?;
        within(&field("subscribe and answer"), fleet.subscribe.len() + fleet.answer.len(), 0, FILTERS_MAX)?;
        for subscribe in &fleet.subscribe {
            within(&field("subscribe.qos"), subscribe.qos, 0, 1)?;
        }
        if let Some(at) = &fleet.at {
            // What chaos is to fill in is not known yet.
            let is_place = at.contains("{at:") || crate::target::split_port(at).is_some();
            require(is_place, &field("at"), "HOST or HOST:PORT", at)?;
        }
        let port = self.target.shifted(fleet.protocol);
        within(&field("port, with target.port_offset"), port, 1, i64::from(u16::MAX))?;
        let listens = !(fleet.subscribe.is_empty() && fleet.answer.is_empty());
        let is_possible = !listens || fleet.protocol.is_mqtt();
        require(is_possible, &field("subscribe"), "absent over HTTP and CoAP", "there")?;
        let is_known = fleet.protocol != Protocol::Coap || fleet.password_file.is_some();
        require(
            is_known,
            &field("password_file"),
            "a file with a token, as every request over CoAP has one",
            "absent",
        )?;
        let is_in_time = fleet.arrive.after.us().saturating_add(fleet.arrive.over.us()) <= self.duration.us();
        require(is_in_time, &field("arrive"), "over within `duration`", fleet.arrive.over)?;
        require(fleet.reconnect[0].us() > 0, &field("reconnect"), "more than 0s", fleet.reconnect[0])?;
        let has_authority = !fleet.protocol.is_tls() || self.tls.authority.is_some();
        require(has_authority, "tls.authority", &format!("a file, as fleet {} uses TLS", fleet.name), "absent")?;
        let is_pair = self.tls.certificate.is_some() == self.tls.key.is_some();
        require(is_pair, "tls.certificate and tls.key", "there together", "alone")?;
        let is_own = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains('{'));
        let is_both = is_own(&self.tls.certificate) == is_own(&self.tls.key);
        require(is_both, "tls.certificate and tls.key", "both with {device} or both without", "not")?;
        for (name, value) in &fleet.values {
            check_value(&field(&format!("values.{name}")), value)?;
        }
        if let Some(Network { lag: [least, most], loss }) = fleet.network {
            require(least <= most, &field("network.lag"), "the least first", most)?;
            within(&field("network.lag (ms)"), most.us() / 1_000, 0, LAG_MS_MAX)?;
            require((0.0..=LOSS_MAX).contains(&loss), &field("network.loss"), &format!("from 0 to {LOSS_MAX}"), loss)?;
        }
        if let Some(failure) = &fleet.failure {
            require((0.0..=1.0).contains(&failure.share), &field("failure.share"), "from 0 to 1", failure.share)?;
            let is_known = fleet.values.contains_key(&failure.field);
            require(is_known, &field("failure.field"), "the name of a value", &failure.field)?;
        }
        fleet.publish.as_ref().map_or(Ok(()), |publish| self.check_publish(fleet, publish))
    }

    fn check_publish(&self, fleet: &Fleet, publish: &Publish) -> Result<(), ScenarioError> {
        let field = |name: &str| format!("fleet {}: publish.{name}", fleet.name);
        within(&field("qos"), publish.qos, 0, 1)?;
        within(&field("window"), publish.window, 1, WINDOW_MAX)?;
        let pad_max = if fleet.protocol == Protocol::Coap { COAP_PAYLOAD_BYTES_MAX } else { PAD_MAX };
        within(&field("pad (bytes)"), publish.pad, 0, pad_max)?;
        let every_us = self.hurried_us(publish.every);
        within(&field("every (µs, divided by `speed`)"), every_us, EVERY_US_MIN, u64::MAX)?;
        let is_watched = match publish.timing {
            Timing::Change => publish.field.is_some(),
            Timing::Batch => true,
            Timing::Fixed | Timing::Poisson => publish.field.is_none(),
        };
        require(is_watched, &field("field"), "there with timing \"change\", absent with a fixed one", "not")?;
        if let Some(looked_at) = &publish.field {
            let is_known = fleet.values.contains_key(looked_at);
            require(is_known, &field("field"), "the name of a value", looked_at)?;
        }
        let is_batch = publish.timing == Timing::Batch;
        require(is_batch == publish.upload.is_some(), &field("upload"), "there exactly with timing \"batch\"", "not")?;
        let is_carried = !is_batch || fleet.protocol.is_http();
        require(is_carried, &field("timing"), "another than \"batch\" unless the protocol is HTTP", "batch")?;
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() && !"\"\\?#%".contains(c));
        for text in [&fleet.device, &publish.topic] {
            let fits = !fleet.protocol.is_http() || is_plain(text);
            require(fits, &field("topic"), "over HTTP, as the device, ASCII without spaces and \" \\ ? # %", text)?;
        }
        if self.ledger {
            let is_numbered = publish.payload.contains("{n}") && publish.payload.contains("{device}");
            require(is_numbered, &field("payload"), "with {device} and {n} where `ledger` is set", "without")?;
        }
        crate::payload::Template::new(&publish.payload, &fleet.values)
            .map(|_| ())
            .map_err(|unknown| out(&field("payload"), "made of known {names}", unknown))
    }
}

fn check_value(field: &str, value: &Value) -> Result<(), ScenarioError> {
    match value {
        Value::Walk { min, max, step, decimals, .. } => {
            require(min < max, &format!("{field}.min"), "less than max", min)?;
            require(*step >= 0.0, &format!("{field}.step"), "at least 0", step)?;
            within(&format!("{field}.decimals"), *decimals, 0, DECIMALS_MAX)
        }
        Value::Daily { noise, decimals, .. } => {
            require(*noise >= 0.0, &format!("{field}.noise"), "at least 0", noise)?;
            within(&format!("{field}.decimals"), *decimals, 0, DECIMALS_MAX)
        }
        Value::Csv { .. } => Ok(()),
    }
}

fn out(field: &str, limit: &str, value: impl Display) -> ScenarioError {
    ScenarioError::Value { field: field.to_owned(), limit: limit.to_owned(), value: value.to_string() }
}

fn require(holds: bool, field: &str, limit: &str, value: impl Display) -> Result<(), ScenarioError> {
    if holds { Ok(()) } else { Err(out(field, limit, value)) }
}

fn within<T: PartialOrd + Display>(field: &str, value: T, min: T, max: T) -> Result<(), ScenarioError> {
    if value >= min && value <= max { Ok(()) } else { Err(out(field, &format!("from {min} to {max}"), value)) }
}
