//! Programs for devices, with credentials in place.
//!
//! One template a language in `snippets/`; `@name@` is the bare value, `@name_quoted@` a string literal.

use anyhow::Context;
use clap::ValueEnum;
use drover_types::DEFAULT_TENANT;
use serde::Deserialize;
use serde_json::Value;

/// What a device needs to connect, as the gateway tells it.
#[derive(Debug, Deserialize)]
pub struct Access {
    pub tenant: String,
    pub device: String,
    pub token: String,
    pub endpoints: Endpoints,
}

/// Where devices connect, `host:port`.
#[derive(Debug, Deserialize)]
pub struct Endpoints {
    pub mqtt: String,
    pub mqtts: String,
}

/// In which language a program is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Python with paho-mqtt
    Python,
    /// ESP32 with PubSubClient
    Arduino,
    /// Shell with mosquitto_pub
    Mosquitto,
    /// Node.js with the mqtt package
    Node,
}

impl Access {
    /// Reads it out of an answer of the gateway.
    pub fn read(answer: &Value) -> anyhow::Result<Self> {
        Self::deserialize(answer).context("the answer does not say how to connect")
    }

    /// The MQTT user name: `TENANT/DEVICE`, or `DEVICE` in the default tenant.
    pub fn user_name(&self) -> String {
        if self.tenant == DEFAULT_TENANT { self.device.clone() } else { format!("{}/{}", self.tenant, self.device) }
    }
}

impl Language {
    fn template(self) -> &'static str {
        match self {
            Self::Python => include_str!("snippets/python.py"),
            Self::Arduino => include_str!("snippets/arduino.ino"),
            Self::Mosquitto => include_str!("snippets/mosquitto.sh"),
            Self::Node => include_str!("snippets/node.js"),
        }
    }

    /// The program for the device.
    pub fn program(self, access: &Access) -> String {
        let (host, port) = access.endpoints.mqtt.rsplit_once(':').unwrap_or((&access.endpoints.mqtt, "1883"));
        let values = [
            ("device", access.device.clone()),
            ("host", host.trim_matches(['[', ']']).to_owned()),
            ("port", port.to_owned()),
            ("url", format!("mqtt://{}", access.endpoints.mqtt)),
            ("user", access.user_name()),
            ("token", access.token.clone()),
            ("topic", format!("sensors/{}/climate", access.device)),
        ];
        let value = |place: &str| {
            let quoted = place.strip_suffix("_quoted");
            let (_, value) = values.iter().find(|(name, _)| *name == quoted.unwrap_or(place))?;
            Some(if quoted.is_some() { Value::from(value.as_str()).to_string() } else { value.clone() })
        };
        // Templates have no other `@`: text and places take turns.
        let parts = self.template().split('@').enumerate();
        parts.map(|(i, part)| if i % 2 == 0 { part.to_owned() } else { value(part).unwrap_or_default() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_device_may_be_named_like_a_place() {
        let endpoints = Endpoints { mqtt: "h:1".into(), mqtts: "h:2".into() };
        let access = Access { tenant: "default".into(), device: "@token@".into(), token: "s3cret".into(), endpoints };
        assert!(Language::Mosquitto.program(&access).contains("-i '@token@' -u '@token@' -P 's3cret'"));
    }

    #[test]
    fn every_program_carries_the_credentials_and_no_open_place() {
        let access = Access::read(&json!({
            "tenant": "home", "device": "t-1", "token": "s3cret",
            "endpoints": {"mqtt": "[::1]:2883", "mqtts": "[::1]:9883"},
        }))
        .expect("complete");
        for language in Language::value_variants() {
            let program = language.program(&access);
            for needed in ["s3cret", "home/t-1", "::1", "2883"] {
                assert!(program.contains(needed), "{language:?} has no {needed}:\n{program}");
            }
            assert!(!program.contains('@'), "{language:?}:\n{program}");
            let places = language.template().split('@').skip(1).step_by(2);
            for place in places {
                let known = ["device", "host", "port", "url", "user", "token", "topic"];
                assert!(known.contains(&place.trim_end_matches("_quoted")), "{language:?}: {place}");
            }
        }
    }
}
