//! What a simulated thermostat says: a function of its number and the time.
//!
//! It says the time too: equal readings, sent with equal packet identifiers by a second run, would rightly be taken for
//! repeats.

use serde_json::json;

/// Readings until the temperature is where it began.
const PERIOD: f64 = 20.0;

/// The reading of thermostat `n` in second `step` since the Unix epoch, as JSON.
pub fn reading(n: usize, step: u64) -> String {
    let phase = std::f64::consts::TAU * (step as f64 / PERIOD + n as f64 / 7.0);
    let temperature = (210.0 + 60.0 * phase.sin()).round() / 10.0;
    let percent = 100 - (n as u64 * 10 + step) % 101;
    json!({"temperature": temperature, "humidity": 40 + n % 20, "battery": {"percent": percent}, "at": step})
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thermostat_is_sometimes_hot_and_sometimes_not() {
        for n in 0..10 {
            let temperature = |step| {
                let json: serde_json::Value = serde_json::from_str(&reading(n, step)).expect("JSON");
                json["temperature"].as_f64().expect("a number")
            };
            let hot = (0..20).filter(|step| temperature(*step) > 24.0).count();
            assert!((1..20).contains(&hot), "thermostat {n} is hot {hot} times of 20");
        }
    }
}
