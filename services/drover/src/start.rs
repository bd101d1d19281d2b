//! From a list of services to a running process: bind everything, open the log, run, drain.
//!
//! One path for `up` and for single services; the only thing it knows of a service is its [`Entry`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use drover_host::bus::OpenBus;
use drover_host::config::{Anonymous, BusKind, ConfigError, Layers, SecurityConfig, Shared};
use drover_host::{
    Conflict, Entry, Health, ListenSpec, Metrics, Network, Ports, Prepared, Service, ServiceConfig, Shutdown, Sockets,
    SystemClock, SystemRandom, Task, Transport, admin, bus, process, run_all, shutdown_on_signal, telemetry,
};
use drover_registry::{Registry, RegistryConfig};

use crate::kafka::{self, KafkaConfig};
use crate::services::{self, ConfigArgs};
use crate::{data, welcome};

/// Listeners of devices, and the keys under which the gateway tells of them.
const ENDPOINTS: [(&str, &str); 3] = [
    ("ingress.mqtt.listen", "gateway.mqtt_endpoint"),
    ("ingress.mqtts.listen", "gateway.mqtts_endpoint"),
    ("ingress.http.listen", "gateway.http_endpoint"),
];

/// Listeners that give way to another of the same process with the same addresses, which then serves the routes of
/// both: who gives way, and to whom.
const MERGED: [(&str, &str); 1] = [("ingress.http.listen", "gateway.listen")];

/// What is to run, its configuration checked.
pub struct Plan {
    pub layers: Layers,
    /// Whether the services of this process are the whole platform.
    pub one_process: bool,
    pub kafka: Option<KafkaConfig>,
    /// Where the certificates are.
    pki: Option<PathBuf>,
    shared: Shared,
    services: Vec<Prepared>,
    port_offset: u16,
}

/// Adds the defaults that services take from their surroundings: the data directory and `[security]`.
pub fn with_surroundings(layers: Layers, data: &Path) -> Result<Layers, ConfigError> {
    let registry: RegistryConfig = layers.section(Registry::NAME)?;
    let pki = registry.pki.unwrap_or_else(|| data::pki_path(data));
    let security: SecurityConfig = layers.section("security")?;
    Ok(layers
        .with_default("registry.pki", &pki)
        .with_default("registry.anonymous", security.anonymous != Anonymous::Off)
        .with_default("ingress.anonymous", security.anonymous)
        .with_default("ingress.tls.certificate", pki.join("server.pem"))
        .with_default("ingress.tls.key", pki.join("server.key"))
        .with_default("ingress.tls.client_ca", pki.join("ca.pem"))
        .with_default("ingress.http.allowed_hosts", security.hostnames.clone())
        .with_default("gateway.allowed_hosts", security.hostnames))
}

/// Adds the addresses that the gateway tells to devices: those of the MQTT listeners, as they will be bound.
pub fn with_endpoints(mut layers: Layers, port_offset: u16) -> Result<Layers, ConfigError> {
    let SecurityConfig { hostnames, .. } = layers.section("security")?;
    for service in services::ALL {
        for spec in service.prepare(&layers)?.listeners {
            let Some((_, key)) = ENDPOINTS.iter().find(|(listener, _)| *listener == spec.key) else { continue };
            let Some(address) = spec.addresses.first() else { continue };
            let (host, port) = (address.ip().to_string(), address.port().saturating_add(port_offset));
            layers = layers.with_default(key, format!("{}:{port}", hostnames.first().unwrap_or(&host)));
        }
    }
    Ok(layers)
}

impl Plan {
    /// Reads and checks the configuration of the process and of `services`.
    pub fn new(services: Vec<Entry>, layers: Layers) -> Result<Self, ConfigError> {
        let sections = services::ALL.iter().map(|service| service.name);
        let known: Vec<&str> = sections.chain(Shared::SECTIONS).chain([kafka::SOCKET]).collect();
        layers.refuse_unknown_sections(&known)?;
        let shared = Shared::load(&layers)?;
        let services = services.iter().map(|service| service.prepare(&layers)).collect::<Result<_, _>>()?;
        let RegistryConfig { pki, .. } = layers.section(Registry::NAME)?;
        Ok(Self { layers, one_process: false, kafka: None, pki, shared, services, port_offset: 0 })
    }

    /// Moves every port by `offset`; the port that would leave the range is the error.
    pub fn shift_ports(&mut self, offset: u16) -> Result<(), u16> {
        self.port_offset = offset;
        let ports = self.specs().into_iter().flat_map(|(_, specs)| specs).flat_map(|spec| spec.addresses);
        ports.map(|address| address.port()).find(|port| port.checked_add(offset).is_none()).map_or(Ok(()), Err)
    }

    /// The sockets of every part, by part.
    fn specs(&self) -> Vec<(&'static str, Vec<ListenSpec>)> {
        let listen = self.shared.admin.listen.clone();
        let admin =
            ListenSpec { name: admin::SOCKET, key: "admin.listen", transport: Transport::Tcp, addresses: listen };
        let services = self.services.iter().map(|service| (service.name, service.listeners.clone()));
        let kafka = self.kafka.iter().map(|kafka| (kafka::SOCKET, kafka.listeners()));
        let mut specs = services.chain(kafka).chain([(admin::SOCKET, vec![admin])]).collect();
        merge(&mut specs);
        specs
    }

    /// Binds every socket of every part, or names all that cannot be bound.
    fn bind(&self) -> Result<Vec<Part>, Vec<Conflict>> {
        let mut parts = Vec::new();
        let mut conflicts = Vec::new();
        for (name, mut specs) in self.specs() {
            let addresses = specs.iter_mut().flat_map(|spec| &mut spec.addresses).filter(|address| address.port() != 0);
            addresses.for_each(|address| address.set_port(address.port() + self.port_offset));
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
        let address = self.shared.admin.listen.first()?;
        Some(SocketAddr::new(address.ip(), address.port() + self.port_offset))
    }

    /// The configuration in force.
    fn print(&self) -> String {
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

fn refusal(conflicts: Vec<Conflict>) -> anyhow::Error {
    let lines: String = conflicts.iter().map(|conflict| format!("\n  {conflict}")).collect();
    anyhow::anyhow!("{} addresses cannot be bound; --port-offset N moves all ports:{lines}", conflicts.len())
}

/// One part of the process and its sockets, bound.
pub struct Part {
    pub name: &'static str,
    pub specs: Vec<ListenSpec>,
    pub sockets: Sockets,
}

/// Runs `plan` on the directory `data` until a signal; or only shows or checks its configuration.
pub fn run(plan: Plan, args: &ConfigArgs, data: PathBuf) -> anyhow::Result<()> {
    if args.print_config {
        print!("{}", plan.print());
        return Ok(());
    }
    if args.check_config {
        println!("the configuration is valid");
        return Ok(());
    }
    let names: Vec<&str> = plan.services.iter().map(|service| service.name).collect();
    anyhow::ensure!(
        plan.one_process || plan.shared.bus.kind != BusKind::Embedded,
        "bus.kind = embedded serves one process: use `drover up`, or `drover up --only {}`",
        names.join(",")
    );
    let threads = plan.shared.process.threads.into();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(serve(plan, data))
}

async fn serve(plan: Plan, data: PathBuf) -> anyhow::Result<()> {
    let _telemetry = telemetry::install(&plan.shared.log, &plan.shared.otlp)?;
    let parts = plan.bind().map_err(refusal)?;
    let shutdown = shutdown_on_signal()?;
    data::create(&data)?;
    let clock = Arc::new(SystemClock);
    // Taking the log's lock first keeps a second process from touching anything else in the directory.
    let log = bus::open(&plan.shared.bus, &data::bus_path(&data), clock.clone()).await?;
    let pki = plan.pki.clone().unwrap_or_else(|| data::pki_path(&data));
    drover_registry::pki::ensure(&pki, &plan.shared.security.hostnames, &*clock).context("certificates")?;
    let network = Network::with_admin_token(plan.shared.network.services.clone(), data::admin_token(&data)?);
    let process = Process { log, network, data, clock, metrics: Metrics::default(), health: Health::default() };
    process::register(&process.metrics, &*process.clock);
    let (drain, text) = (plan.shared.process.drain, welcome::text(&parts, &process.data, &pki));
    let tasks = process.tasks(plan, parts, &shutdown)?;
    let greeting = process.health.clone();
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(async move {
        greeting.all_ready().await;
        print!("{text}");
    }));
    let ended = run_all(tasks, shutdown, drain).await;
    process.log.embedded.close().await;
    Ok(ended?)
}

/// What all parts share.
struct Process {
    log: OpenBus,
    network: Network,
    data: PathBuf,
    clock: Arc<SystemClock>,
    metrics: Metrics,
    health: Health,
}

impl Process {
    fn tasks(&self, plan: Plan, parts: Vec<Part>, shutdown: &Shutdown) -> anyhow::Result<Vec<Task>> {
        let mut services = plan.services;
        let mut tasks = Vec::new();
        for part in parts {
            let Part { name, sockets, .. } = part;
            let task = match services.iter().position(|service| service.name == name) {
                Some(place) => self.service(services.swap_remove(place), sockets, shutdown)?,
                None if name == kafka::SOCKET => self.kafka(plan.kafka.as_ref(), &sockets, shutdown)?,
                None => self.admin(&sockets, shutdown)?,
            };
            tasks.push(task);
        }
        Ok(tasks)
    }

    fn service(&self, service: Prepared, sockets: Sockets, shutdown: &Shutdown) -> anyhow::Result<Task> {
        let own = self.data.join(service.name);
        data::create(&own)?;
        let ports = Ports {
            bus: self.log.bus.clone(),
            clock: self.clock.clone(),
            random: Arc::new(SystemRandom),
            network: self.network.clone(),
            sockets,
            data: own,
            metrics: self.metrics.clone(),
            ready: self.health.service(service.name),
        };
        Ok(Task { name: service.name, body: (service.body)(ports, shutdown.clone()) })
    }

    fn kafka(&self, config: Option<&KafkaConfig>, sockets: &Sockets, shutdown: &Shutdown) -> anyhow::Result<Task> {
        let listeners = sockets.take_tcp(kafka::SOCKET)?;
        let config = config.map(KafkaConfig::listener).unwrap_or_default();
        let metrics = drover_kafka_listener::Metrics::default();
        self.metrics.register(|registry| metrics.register(registry));
        let (bus, stop) = (self.log.embedded.clone(), shutdown.clone().cancelled_owned());
        let body = async move { Ok(drover_kafka_listener::serve(listeners, bus, config, metrics, stop).await?) };
        Ok(Task { name: kafka::SOCKET, body: Box::pin(body) })
    }

    fn admin(&self, sockets: &Sockets, shutdown: &Shutdown) -> anyhow::Result<Task> {
        let listeners = sockets.take_tcp(admin::SOCKET)?;
        let (health, metrics, stop) = (self.health.clone(), self.metrics.clone(), shutdown.clone());
        let body = async move { Ok(admin::serve(listeners, health, metrics, stop).await?) };
        Ok(Task { name: admin::SOCKET, body: Box::pin(body) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(key: &'static str, port: u16) -> ListenSpec {
        let addresses = vec![SocketAddr::from(([127, 0, 0, 1], port))];
        ListenSpec { name: key, key, transport: Transport::Tcp, addresses }
    }

    #[test]
    fn a_listener_gives_way_only_to_one_of_the_same_addresses() {
        let kept = |gateway: Option<u16>| {
            let mut specs =
                vec![("ingress", vec![spec("ingress.mqtt.listen", 1883), spec("ingress.http.listen", 8080)])];
            specs.extend(gateway.map(|port| ("gateway", vec![spec("gateway.listen", port)])));
            merge(&mut specs);
            specs.into_iter().flat_map(|(_, specs)| specs).map(|spec| spec.key).collect::<Vec<_>>()
        };
        assert_eq!(kept(Some(8080)), ["ingress.mqtt.listen", "gateway.listen"]);
        assert_eq!(kept(Some(8081)), ["ingress.mqtt.listen", "ingress.http.listen", "gateway.listen"]);
        assert_eq!(kept(None), ["ingress.mqtt.listen", "ingress.http.listen"]);
    }
}
