//! Programs for devices, with credentials in place: what `drover device snippet` prints and the console shows.
//!
//! One template a language in `programs/`; `@name@` is the bare value, `@name_quoted@` a string literal.

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
    pub http: String,
}

/// In which language a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    Python,
    Arduino,
    Mosquitto,
    Curl,
    Node,
}

impl Access {
    /// The MQTT user name: `TENANT/DEVICE`, or `DEVICE` in the default tenant.
    pub fn user_name(&self) -> String {
        if self.tenant == DEFAULT_TENANT { self.device.clone() } else { format!("{}/{}", self.tenant, self.device) }
    }
}

impl Language {
    /// Every language, the most asked for first.
    pub const ALL: [Language; 5] = [Self::Python, Self::Arduino, Self::Mosquitto, Self::Curl, Self::Node];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Arduino => "arduino",
            Self::Mosquitto => "mosquitto",
            Self::Curl => "curl",
            Self::Node => "node",
        }
    }

    /// What people call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Arduino => "Arduino",
            Self::Mosquitto => "Shell",
            Self::Curl => "curl",
            Self::Node => "Node.js",
        }
    }

    /// What it needs.
    pub fn about(self) -> &'static str {
        match self {
            Self::Python => "Python with paho-mqtt",
            Self::Arduino => "ESP32 with PubSubClient",
            Self::Mosquitto => "Shell with mosquitto_pub",
            Self::Curl => "HTTP with curl",
            Self::Node => "Node.js with the mqtt package",
        }
    }

    fn template(self) -> &'static str {
        match self {
            Self::Python => include_str!("programs/python.py"),
            Self::Arduino => include_str!("programs/arduino.ino"),
            Self::Mosquitto => include_str!("programs/mosquitto.sh"),
            Self::Curl => include_str!("programs/curl.sh"),
            Self::Node => include_str!("programs/node.js"),
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
            ("http", access.endpoints.http.clone()),
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

    fn access(tenant: &str, device: &str) -> Access {
        let endpoints = Endpoints { mqtt: "[::1]:2883".into(), mqtts: "[::1]:9883".into(), http: "[::1]:9080".into() };
        Access { tenant: tenant.into(), device: device.into(), token: "s3cret".into(), endpoints }
    }

    #[test]
    fn a_device_may_be_named_like_a_place() {
        let program = Language::Mosquitto.program(&access("default", "@token@"));
        assert!(program.contains("-i '@token@' -u '@token@' -P 's3cret'"), "{program}");
    }

    #[test]
    fn every_program_carries_the_credentials_and_no_open_place() {
        for language in Language::ALL {
            let program = language.program(&access("home", "t-1"));
            let needed: &[&str] = match language {
                Language::Curl => &["s3cret", "[::1]:9080"],
                Language::Python | Language::Arduino | Language::Mosquitto | Language::Node => {
                    &["s3cret", "home/t-1", "::1", "2883"]
                }
            };
            for needed in needed {
                assert!(program.contains(needed), "{language:?} has no {needed}:\n{program}");
            }
            assert!(!program.contains('@'), "{language:?}:\n{program}");
            let places = language.template().split('@').skip(1).step_by(2);
            for place in places {
                let known = ["device", "host", "port", "url", "http", "user", "token", "topic"];
                assert!(known.contains(&place.trim_end_matches("_quoted")), "{language:?}: {place}");
            }
        }
    }
}
