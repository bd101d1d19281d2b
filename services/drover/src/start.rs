//! From a list of services to a running process: bind everything, open the log, run, drain.
//!
//! One path for `up` and for single services; the only thing it knows of a service is its [`Entry`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use drover_bus::embedded::EmbeddedBus;
use drover_host::bus::OpenBus;
use drover_host::config::{
    Anonymous, BusConfig, BusKind, ConfigError, Layers, NetworkConfig, SecurityConfig, Shared, UnknownKeys,
};
use drover_host::dependency::{self, Dependency};
use drover_host::{
    Calling, Cassandra, Conflict, Entry, Health, ListenSpec, Metrics, Network, NetworkParts, NetworkTls, Ports,
    Prepared, Ready, Retained, Service, ServiceConfig, Shutdown, Sockets, SystemClock, SystemRandom, Task, Transport,
    admin, bus, process, run_all, shutdown_on_signal, telemetry,
};
use drover_ingress::Ingress;
use drover_ingress::config::{IngressConfig, OwnersConfig};
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

/// Longest wait for threads that are busy when everything else has ended.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// Under which name `/readyz` tells of a process that has not begun.
const START: &str = "start";
/// Under which name `/readyz` tells of the log.
const LOG: &str = "log";

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
}

/// Adds the defaults that services take from their surroundings: the data directory and `[security]`.
pub fn with_surroundings(layers: Layers, data: &Path) -> Result<Layers, ConfigError> {
    let registry: RegistryConfig = layers.section(Registry::NAME)?;
    let security: SecurityConfig = layers.section("security")?;
    let pki = registry.pki.or(security.pki).unwrap_or_else(|| data::pki_path(data));
    Ok(layers
        .with_default("registry.pki", &pki)
        .with_default("registry.anonymous", security.anonymous != Anonymous::Off)
        .with_default("registry.jwt", security.jwt)
        .with_default("ingress.anonymous", security.anonymous)
        .with_default("ingress.tls.certificate", pki.join("server.pem"))
        .with_default("ingress.tls.key", pki.join("server.key"))
        .with_default("ingress.tls.client_ca", pki.join("ca.pem"))
        .with_default("ingress.http.allowed_hosts", security.hostnames.clone())
        .with_default("gateway.allowed_hosts", security.hostnames))
}

/// Whether the log is one of this process alone.
pub fn is_embedded(layers: &Layers) -> Result<bool, ConfigError> {
    let bus: BusConfig = layers.section("bus")?;
    Ok(bus.kind == BusKind::Embedded)
}

/// Refuses every key that nobody knows, all at once.
pub fn refuse_unknown_keys(layers: &Layers) -> Result<(), ConfigError> {
    let sections = services::ALL.iter().map(|service| service.name);
    let known: Vec<&str> = sections.chain(Shared::SECTIONS).chain([kafka::SOCKET]).collect();
    let mut unknown = layers.unknown_sections(&known)?;
    unknown.0.extend(Shared::unknown_keys(layers).0);
    unknown.0.extend(services::ALL.iter().flat_map(|service| service.unknown_keys(layers).0));
    unknown.0.extend(layers.unknown_keys::<KafkaConfig>(kafka::SOCKET).0);
    unknown.refuse()?;
    refuse_unknown_services(layers)
}

/// Refuses names in `[network]` that are those of no service.
fn refuse_unknown_services(layers: &Layers) -> Result<(), ConfigError> {
    let network: NetworkConfig = layers.section("network")?;
    let RegistryConfig { ingress_nodes, .. } = layers.section(Registry::NAME)?;
    let names = services::ALL.iter().map(|service| service.name);
    let known: Vec<&str> = names.chain(ingress_nodes.iter().map(String::as_str)).collect();
    let mut given: Vec<&String> = network.services.keys().collect();
    given.sort();
    let unknown = given.into_iter().filter(|name| !known.contains(&name.as_str()));
    UnknownKeys(unknown.map(|name| layers.unknown_key("network", name, &known)).collect()).refuse()
}

/// Refuses an ingress process that does not say where all ingress nodes are, or of which several would each decide alone
/// whose a session is: epochs of one client would not be in one order, and its presence would contradict itself.
pub fn refuse_lone_owners(service: &str, layers: &Layers) -> Result<(), ConfigError> {
    if service != Ingress::NAME {
        return Ok(());
    }
    let network: NetworkConfig = layers.section("network")?;
    let nodes = network.services.get(Ingress::NAME).map_or(0, Vec::len);
    let IngressConfig { owners, .. } = layers.section(Ingress::NAME)?;
    match owners {
        _ if nodes == 0 => Err(layers.missing(
            "network.ingress",
            "says where all ingress nodes are, this one among them; set a list of http://HOST:PORT, of one if there is \
             no other"
                .to_owned(),
        )),
        OwnersConfig::Embedded if nodes > 1 => Err(layers.missing(
            "ingress.owners.kind",
            format!(
                "embedded is for one ingress node, network.ingress names {nodes}: set \"cassandra\", or \"clock\" if \
                 there is no database and the clocks of the nodes agree"
            ),
        )),
        OwnersConfig::Embedded | OwnersConfig::Clock | OwnersConfig::Cassandra => Ok(()),
    }
}

/// Why ports cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum ShiftError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("--port-offset {offset} moves port {port} beyond 65535")]
    Beyond { port: u16, offset: u16 },
}

/// Moves every port by `offset`, but for those that the system is to choose (0).
pub fn shift_ports(mut layers: Layers, offset: u16) -> Result<Layers, ShiftError> {
    if offset == 0 {
        return Ok(layers);
    }
    let mut specs = vec![admin_spec(&Shared::load(&layers)?)];
    specs.extend(KafkaConfig::load(&layers)?.listeners());
    for service in services::ALL {
        specs.extend(service.prepare(&layers)?.listeners);
    }
    for mut spec in specs {
        for address in spec.addresses.iter_mut().filter(|address| address.port() != 0) {
            let port = address.port();
            address.set_port(port.checked_add(offset).ok_or(ShiftError::Beyond { port, offset })?);
        }
        layers = layers.with_override(spec.key, spec.addresses);
    }
    Ok(layers)
}

/// Moves the ports at which services in other processes are called.
pub fn shift_network(mut layers: Layers, offset: u16) -> Result<Layers, ShiftError> {
    let network: NetworkConfig = layers.section("network")?;
    for (service, uris) in network.services {
        let shifted = uris.iter().map(|uri| {
            let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
            let shifted = port.checked_add(offset).ok_or(ShiftError::Beyond { port, offset })?;
            Ok(format!("{}://{}:{shifted}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default()))
        });
        let shifted = shifted.collect::<Result<Vec<String>, ShiftError>>()?;
        layers = layers.with_override(&format!("network.{service}"), shifted);
    }
    Ok(layers)
}

fn admin_spec(shared: &Shared) -> ListenSpec {
    let addresses = shared.admin.listen.clone();
    ListenSpec { name: admin::SOCKET, key: "admin.listen", transport: Transport::Tcp, addresses }
}

/// Adds the addresses that the gateway tells to devices: those of the MQTT listeners, as they will be bound.
pub fn with_endpoints(mut layers: Layers) -> Result<Layers, ConfigError> {
    let SecurityConfig { hostnames, .. } = layers.section("security")?;
    for service in services::ALL {
        for spec in service.prepare(&layers)?.listeners {
            let Some((_, key)) = ENDPOINTS.iter().find(|(listener, _)| *listener == spec.key) else { continue };
            let Some(address) = spec.addresses.first() else { continue };
            let (host, port) = (address.ip().to_string(), address.port());
            layers = layers.with_default(key, format!("{}:{port}", hostnames.first().unwrap_or(&host)));
        }
    }
    Ok(layers)
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

    /// Whether the log is in this process, where the Kafka listener can serve it.
    pub fn has_embedded_log(&self) -> bool {
        match self.shared.bus.kind {
            BusKind::Embedded => true,
            BusKind::Kafka => false,
        }
    }

    /// What the log keeps until the services of this process have consumed it.
    fn retained(&self) -> Vec<Retained> {
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
    fn bind(&self) -> Result<Vec<Part>, Vec<Conflict>> {
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
        plan.one_process || !plan.has_embedded_log(),
        "bus.kind = embedded serves one process: use `drover up`, or `drover up --only {}`",
        names.join(",")
    );
    let threads = plan.shared.process.threads.into();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    let ended = runtime.block_on(serve(plan, data));
    // Questions to a cluster that is away may still be waiting for an answer; nobody wants it any more.
    runtime.shutdown_timeout(LAST_WAIT);
    ended
}

async fn serve(plan: Plan, data: PathBuf) -> anyhow::Result<()> {
    let (metrics, health, clock) = (Metrics::default(), Health::default(), Arc::new(SystemClock));
    let _telemetry = telemetry::install(&plan.shared.log, &plan.shared.otlp, &metrics)?;
    let parts = plan.bind().map_err(refusal)?;
    let shutdown = shutdown_on_signal()?;
    data::create(&data)?;
    process::register(&metrics, &*clock);
    let pki = plan.pki.clone().unwrap_or_else(|| data::pki_path(&data));
    let text = welcome::text(&parts, &data, &pki); // before any part takes its sockets
    // Until all parts are there to speak for themselves, the process is not ready.
    let starting = health.service(START);
    let admin = spawn_admin(&parts, &health, &metrics, &shutdown)?;
    // Taking the log's lock first keeps a second process from touching anything else in the directory.
    let log = bus::open(&plan.shared.bus, &data::bus_path(&data), clock.clone(), &plan.retained(), &metrics)?;
    let network = network(&plan, &data)?;
    network.register(&metrics);
    match plan.one_process {
        true => {
            drop(drover_registry::pki::ensure(&pki, &plan.shared.security.hostnames, &*clock).context("certificates")?)
        }
        false => refuse_missing_certificates(&plan, &pki)?,
    }
    let ready = health.service(LOG);
    if bus::prepare(&*log.bus, &plan.shared.bus, &ready, &shutdown).await?.is_none() {
        return Ok(());
    }
    let cassandra =
        Cassandra::new(plan.shared.cassandra.options().map_err(|(key, why)| anyhow::anyhow!("{key}: {why}"))?);
    let process = Process { log, network, data, clock, metrics, cassandra, health };
    let (drain, greets) = (plan.shared.process.drain, plan.one_process);
    let mut tasks = process.dependencies(&plan, ready, &shutdown);
    tasks.push(admin);
    tasks.extend(
        process.log.embedded.clone().map(|log| Task { name: LOG, body: Box::pin(unbroken(log, shutdown.clone())) }),
    );
    tasks.extend(process.tasks(plan, parts, &shutdown)?);
    starting.ready();
    let greeting = process.health.clone();
    tokio::spawn(shutdown.clone().run_until_cancelled_owned(async move {
        greeting.all_ready().await;
        if greets {
            print!("{text}");
        }
    }));
    let ended = run_all(tasks, shutdown, drain).await;
    if let Some(embedded) = &process.log.embedded {
        embedded.close().await;
    }
    Ok(ended?)
}

/// Ends with an error when the log does: nothing would be acknowledged any more.
async fn unbroken(log: EmbeddedBus, shutdown: Shutdown) -> anyhow::Result<()> {
    match shutdown.run_until_cancelled(log.broken()).await {
        Some(()) => anyhow::bail!("the writer of the log has failed; start again, which repairs what it has left"),
        None => Ok(()),
    }
}

/// Separate processes share what `drover init` has made: an authority of its own would be known to nobody else.
fn refuse_missing_certificates(plan: &Plan, pki: &Path) -> anyhow::Result<()> {
    let runs = |name: &str| plan.services.iter().any(|service| service.name == name);
    let IngressConfig { tls, .. } = plan.layers.section(Ingress::NAME)?;
    let authority = runs(Registry::NAME).then(|| pki.join("ca.key"));
    let listeners = tls.certificate.filter(|_| runs(Ingress::NAME));
    for file in authority.into_iter().chain(listeners) {
        anyhow::ensure!(
            file.exists(),
            "{} does not exist; `drover init` makes it, security.pki says where it is",
            file.display()
        );
    }
    Ok(())
}

/// The admin port answers from the start: what follows may have to wait for others.
fn spawn_admin(parts: &[Part], health: &Health, metrics: &Metrics, shutdown: &Shutdown) -> anyhow::Result<Task> {
    let part = parts.iter().find(|part| part.name == admin::SOCKET);
    let listeners = part.map(|part| part.sockets.take_tcp(admin::SOCKET)).transpose()?.unwrap_or_default();
    let serving = tokio::spawn(admin::serve(listeners, health.clone(), metrics.clone(), shutdown.clone()));
    Ok(Task { name: admin::SOCKET, body: Box::pin(async move { Ok(serving.await??) }) })
}

/// The way to other services, and what proves this process to them.
fn network(plan: &Plan, data: &Path) -> anyhow::Result<Network> {
    let config = &plan.shared.network;
    let admin_token = match plan.one_process {
        true if plan.shared.security.names_no_token() => data::made_admin_token(data)?,
        true | false => data::shared_admin_token(data, &plan.shared.security)?,
    };
    let parts = NetworkParts {
        services: config.services.clone(),
        admin_token: Some(admin_token),
        tls: config.tls.as_ref().map(NetworkTls::read).transpose()?,
        calling: Calling { deadline: config.deadline.as_std(), is_idempotent: drover_proto::is_idempotent },
    };
    Network::new(parts).context("network.tls")
}

/// What all parts share.
struct Process {
    log: OpenBus,
    network: Network,
    data: PathBuf,
    clock: Arc<SystemClock>,
    metrics: Metrics,
    cassandra: Cassandra,
    health: Health,
}

impl Process {
    /// Looks at what is in other processes, as long as this one runs.
    fn dependencies(&self, plan: &Plan, log: Ready, shutdown: &Shutdown) -> Vec<Task> {
        let needs: Vec<&'static str> = plan.services.iter().flat_map(|service| service.needs).copied().collect();
        let mut watched = Vec::new();
        for service in self.network.remote_services() {
            let probe = dependency::service(&service, self.network.client(&service));
            watched.push(match needs.iter().find(|need| **need == service) {
                Some(need) => Dependency::needed(self.health.service(need), &self.health, probe),
                None => Dependency::wanted(&service, &self.health, probe),
            });
        }
        match plan.shared.bus.kind {
            BusKind::Embedded => log.ready(),
            BusKind::Kafka => {
                watched.push(Dependency::needed(log, &self.health, dependency::log(self.log.bus.clone())));
            }
        }
        let task = |dependency: Dependency| {
            let watching = dependency.watch(shutdown.clone());
            let body = async {
                watching.await;
                Ok(())
            };
            Task { name: "dependencies", body: Box::pin(body) }
        };
        watched.into_iter().map(task).collect()
    }

    fn tasks(&self, plan: Plan, parts: Vec<Part>, shutdown: &Shutdown) -> anyhow::Result<Vec<Task>> {
        let (mut services, mut tasks) = (plan.services, Vec::new());
        for Part { name, sockets, .. } in parts {
            match services.iter().position(|service| service.name == name) {
                Some(place) => tasks.push(self.service(services.swap_remove(place), sockets, shutdown)?),
                None if name == kafka::SOCKET => tasks.push(self.kafka(plan.kafka.as_ref(), &sockets, shutdown)?),
                None => {} // the admin port runs already
            }
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
            cassandra: self.cassandra.clone(),
            ready: self.health.service(service.name),
        };
        Ok(Task { name: service.name, body: (service.body)(ports, shutdown.clone()) })
    }

    fn kafka(&self, config: Option<&KafkaConfig>, sockets: &Sockets, shutdown: &Shutdown) -> anyhow::Result<Task> {
        let listeners = sockets.take_tcp(kafka::SOCKET)?;
        let config = config.map(KafkaConfig::listener).unwrap_or_default();
        let metrics = drover_kafka_listener::Metrics::default();
        self.metrics.register(|registry| metrics.register(registry));
        let bus = self.log.embedded.clone().context("the Kafka listener serves the embedded log only")?;
        let stop = shutdown.clone().cancelled_owned();
        let body = async move { Ok(drover_kafka_listener::serve(listeners, bus, config, metrics, stop).await?) };
        Ok(Task { name: kafka::SOCKET, body: Box::pin(body) })
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
