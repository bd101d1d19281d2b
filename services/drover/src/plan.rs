//! What is to run: the services of this process and their sockets, their configuration read and checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use drover_host::config::{BusKind, ConfigError, Layers, Shared};
use drover_host::{Conflict, Entry, ListenSpec, Prepared, Retained, Service, ServiceConfig, Sockets, admin};
use drover_registry::{Registry, RegistryConfig};

use crate::kafka::{self, KafkaConfig, SecurityProtocol};
use crate::layers::admin_spec;

/// Listeners that give way to another of the same process with the same addresses, which then serves the routes of
/// both: who gives way, and to whom.
const MERGED: [(&str, &str); 2] =
    [("ingress.http.listen", "gateway.listen"), ("ingress.https.listen", "gateway.https.listen")];

/// What is to run, its configuration checked.
pub struct Plan {
    pub layers: Layers,
    /// Whether the services of this process are the whole platform.
    pub one_process: bool,
    pub kafka: Option<KafkaConfig>,
    /// Where the certificates are.
    pub pki: Option<PathBuf>,
    pub shared: Shared,
    pub services: Vec<Prepared>,
}

/// One part of the process and its sockets, bound.
pub struct Part {
    pub name: &'static str,
    pub specs: Vec<ListenSpec>,
    pub sockets: Sockets,
}

impl Plan {
    /// Reads and checks the configuration of the process and of `services`.
    pub fn new(services: Vec<Entry>, layers: Layers) -> Result<Self, ConfigError> {
        let shared = Shared::load(&layers)?;
        let services = services.iter().map(|service| service.prepare(&layers)).collect::<Result<_, _>>()?;
        let services: Vec<Prepared> = services;
        for (service, need) in services.iter().flat_map(|s| s.needs.iter().map(|need| (s.name, *need))) {
            let here = services.iter().any(|service| service.name == need);
            if !here && !shared.network.services.contains_key(need) {
                return Err(layers.missing(
                    &format!("network.{need}"),
                    format!("{service} needs the {need}, which is not in this process; set http://HOST:PORT"),
                ));
            }
        }
        let RegistryConfig { pki, .. } = layers.section(Registry::NAME)?;
        Ok(Self { layers, one_process: false, kafka: None, pki, shared, services })
    }

    /// Adds the Kafka listener. With passwords it needs the registry, which knows them.
    pub fn with_kafka(&mut self, kafka: KafkaConfig) -> Result<(), ConfigError> {
        let here = self.services.iter().any(|service| service.name == Registry::NAME);
        let reached = here || self.shared.network.services.contains_key(Registry::NAME);
        if kafka.security == SecurityProtocol::SaslSsl && !reached {
            let reason =
                "kafka.security = \"sasl_ssl\" needs the registry, which is not in this process; set http://HOST:PORT";
            return Err(self.layers.missing("network.registry", reason.to_owned()));
        }
        self.kafka = Some(kafka);
        Ok(())
    }

    /// Whether the log is in this process, where the Kafka listener can serve it.
    pub fn has_embedded_log(&self) -> bool {
        match self.shared.bus.kind {
            BusKind::Embedded => true,
            BusKind::Kafka => false,
        }
    }

    /// What the log keeps until the services of this process have consumed it.
    pub fn retained(&self) -> Vec<Retained> {
        self.services.iter().flat_map(|service| service.retains).copied().collect()
    }

    /// The sockets of every part, by part.
    fn specs(&self) -> Vec<(&'static str, Vec<ListenSpec>)> {
        let services = self.services.iter().map(|service| (service.name, service.listeners.clone()));
        let kafka = self.kafka.iter().map(|kafka| (kafka::SOCKET, kafka.listeners()));
        let mut specs = services.chain(kafka).chain([(admin::SOCKET, vec![admin_spec(&self.shared)])]).collect();
        merge(&mut specs);
        specs
    }

    /// Binds every socket of every part, or names all that cannot be bound.
    pub fn bind(&self) -> Result<Vec<Part>, Vec<Conflict>> {
        let mut parts = Vec::new();
        let mut conflicts = Vec::new();
        for (name, specs) in self.specs() {
            match Sockets::bind(&specs) {
                Ok(sockets) => parts.push(Part { name, specs, sockets }),
                Err(found) => conflicts.extend(found),
            }
        }
        if conflicts.is_empty() { Ok(parts) } else { Err(conflicts) }
    }

    /// Addresses that cannot be bound now.
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.bind().err().unwrap_or_default()
    }

    /// Where the admin port of a process with this configuration is.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.shared.admin.listen.first().copied()
    }

    /// The configuration in force.
    pub fn print(&self) -> String {
        let kafka = self
            .kafka
            .iter()
            .map(|kafka| (kafka::SOCKET, serde_json::to_value(kafka).expect("a configuration is plain data")));
        let services = self.services.iter().map(|service| (service.name, service.section.clone()));
        drover_host::config::print(self.shared.sections().into_iter().chain(services).chain(kafka).collect())
    }
}

/// Leaves out what is merged into another listener.
fn merge(specs: &mut Vec<(&'static str, Vec<ListenSpec>)>) {
    for (giving, taking) in MERGED {
        let mut all = specs.iter().flat_map(|(_, specs)| specs);
        let Some(addresses) = all.find(|spec| spec.key == taking).map(|spec| spec.addresses.clone()) else { continue };
        specs.iter_mut().for_each(|(_, specs)| specs.retain(|s| s.key != giving || s.addresses != addresses));
    }
}

#[cfg(test)]
mod tests {
    use drover_host::Transport;

    use super::*;
    use crate::services;

    const MQTT: &str = "ingress.mqtt.listen";
    const DEVICES: &str = "ingress.http.listen";
    const DEVICES_OVER_TLS: &str = "ingress.https.listen";
    const HTTP: &str = "gateway.listen";
    const HTTPS: &str = "gateway.https.listen";

    fn spec(key: &'static str, port: u16) -> ListenSpec {
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        ListenSpec { name: key, key, transport: Transport::Tcp, addresses }
    }

    #[test]
    fn the_log_waits_for_storage_where_it_runs_and_else_for_nobody() {
        let retained = |runs: &dyn Fn(&Entry) -> bool| {
            let layers = Layers::load(None, &[]).expect("defaults");
            let services = services::ALL.into_iter().filter(|service| runs(service)).collect();
            Plan::new(services, layers).expect("defaults are valid").retained()
        };
        let telemetry = Retained { topic: drover_types::TELEMETRY_TOPIC, group: drover_storage::GROUP };
        assert_eq!(retained(&|_| true), [telemetry]);
        assert_eq!(retained(&|service| service.name != "storage"), []);
    }

    #[test]
    fn a_listener_gives_way_only_to_one_of_the_same_addresses() {
        let kept = |gateway: &[(&'static str, u16)]| {
            let specs_of = |listeners: &[(&'static str, u16)]| -> Vec<ListenSpec> {
                listeners.iter().map(|&(key, port)| spec(key, port)).collect()
            };
            let ingress = specs_of(&[(MQTT, 1883), (DEVICES, 8080), (DEVICES_OVER_TLS, 8443)]);
            let mut specs = vec![("ingress", ingress), ("gateway", specs_of(gateway))];
            merge(&mut specs);
            specs.into_iter().flat_map(|(_, specs)| specs).map(|spec| spec.key).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[(HTTP, 8080), (HTTPS, 8443)]), [MQTT, HTTP, HTTPS]);
        assert_eq!(kept(&[(HTTP, 8081), (HTTPS, 8443)]), [MQTT, DEVICES, HTTP, HTTPS]);
        assert_eq!(kept(&[(HTTP, 8080), (HTTPS, 8444)]), [MQTT, DEVICES_OVER_TLS, HTTP, HTTPS]);
        assert_eq!(kept(&[]), [MQTT, DEVICES, DEVICES_OVER_TLS]);
    }
}
