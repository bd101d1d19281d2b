//! What a simulated thermostat says: a function of its number and the time.
//!
//! No two readings of a thermostat are equal for half an hour: equal ones, sent again with equal packet identifiers by
//! a second run, would rightly be taken for repeats.

use serde_json::json;

/// Readings until the temperature is where it began.
const PERIOD: f64 = 20.0;

/// The reading in second `step` of thermostat `n`, as JSON.
pub fn reading(n: usize, step: u64) -> String {
    let phase = std::f64::consts::TAU * (step as f64 / PERIOD + n as f64 / 7.0);
    let temperature = (210.0 + 60.0 * phase.sin()).round() / 10.0;
    let percent = 100 - (n as u64 * 10 + step) % 101;
    json!({"temperature": temperature, "humidity": 40 + n % 20, "battery": {"percent": percent}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thermostat_is_sometimes_hot_and_never_repeats_itself_soon() {
        for n in 0..10 {
            let all: std::collections::BTreeSet<String> = (0..1_800).map(|step| reading(n, step)).collect();
            assert_eq!(all.len(), 1_800, "thermostat {n} repeats itself");
            let temperature = |step| {
                let json: serde_json::Value = serde_json::from_str(&reading(n, step)).expect("JSON");
                json["temperature"].as_f64().expect("a number")
            };
            let hot = (0..20).filter(|step| temperature(*step) > 24.0).count();
            assert!((1..20).contains(&hot), "thermostat {n} is hot {hot} times of 20");
        }
    }
}
