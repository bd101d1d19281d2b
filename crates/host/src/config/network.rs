//! `[network]`: which services are in other processes, and how they are called.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tonic::transport::Uri;

use crate::{Duration, NetworkTlsConfig};

/// Shortest and longest deadline of a call.
const DEADLINES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));

/// `[network]`. Besides the keys below, `SERVICE = "http://HOST:PORT"`, or a list of its replicas; services that are not
/// named are in this process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    /// Longest a call to another process may take with all its tries, 100ms to 5m; some calls have less.
    pub deadline: Duration,
    /// Mutual TLS between processes; absent: plain text, for networks that nobody else can listen to.
    pub tls: Option<NetworkTlsConfig>,
    #[serde(flatten, with = "uris")]
    pub services: HashMap<String, Vec<Uri>>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(15), tls: None, services: HashMap::new() }
    }
}

impl NetworkConfig {
    /// The key that is wrong, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let (least, most) = DEADLINES;
        if !(least..=most).contains(&self.deadline) {
            return Err(("network.deadline", format!("is {}, allowed are {least} to {most}", self.deadline)));
        }
        let wanted = if self.tls.is_some() { "https" } else { "http" };
        let mut names: Vec<&String> = self.services.keys().collect();
        names.sort();
        for name in names {
            let uris = &self.services[name];
            if uris.is_empty() {
                return Err(("network", format!("{name}: has no replica; leave it out if it is in this process")));
            }
            if let Some(uri) = uris.iter().find(|uri| uri.scheme_str() != Some(wanted)) {
                let because = if self.tls.is_some() { "with" } else { "without" };
                return Err(("network", format!("{name}: {uri} is not {wanted}://HOST:PORT, {because} network.tls")));
            }
        }
        Ok(())
    }
}

/// URIs as text, one or a list of them.
mod uris {
    use super::{BTreeMap, Deserialize, Deserializer, HashMap, Serialize, Serializer, Uri};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }

    pub fn serialize<S: Serializer>(uris: &HashMap<String, Vec<Uri>>, serializer: S) -> Result<S::Ok, S::Error> {
        let text = |uris: &Vec<Uri>| match uris.as_slice() {
            [one] => OneOrMany::One(one.to_string()),
            many => OneOrMany::Many(many.iter().map(Uri::to_string).collect()),
        };
        let sorted: BTreeMap<&String, OneOrMany> = uris.iter().map(|(name, uris)| (name, text(uris))).collect();
        sorted.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HashMap<String, Vec<Uri>>, D::Error> {
        let given = HashMap::<String, OneOrMany>::deserialize(deserializer)?;
        let replicas = |(name, texts): (String, OneOrMany)| {
            let texts = match texts {
                OneOrMany::One(text) => vec![text],
                OneOrMany::Many(texts) => texts,
            };
            let uris = texts.iter().map(|text| match text.parse::<Uri>() {
                Ok(uri) if uri.scheme().is_some() && uri.authority().is_some() => Ok(uri),
                Ok(_) | Err(_) => Err(serde::de::Error::custom(format!("{name}: {text:?} is not http://HOST:PORT"))),
            });
            Ok((name.clone(), uris.collect::<Result<_, D::Error>>()?))
        };
        given.into_iter().map(replicas).collect()
    }
}
