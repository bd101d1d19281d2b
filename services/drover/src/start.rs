//! From a plan to a running process: bind everything, open the log, run, drain.
//!
//! One path for `up` and for single services; the only thing it knows of a service is its `Entry`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use drover_bus::embedded::EmbeddedBus;
use drover_functions::Pool;
use drover_host::bus::OpenBus;
use drover_host::config::BusKind;
use drover_host::dependency::{self, Dependency};
use drover_host::{
    Calling, Cassandra, Conflict, Health, Metrics, Network, NetworkParts, NetworkTls, Ports, Prepared, Ready, Service,
    Shutdown, Sockets, SystemClock, SystemRandom, Task, Tls, TlsConfig, admin, bus, process, run_all,
    shutdown_on_signal, telemetry,
};
use drover_ingress::Ingress;
use drover_ingress::config::IngressConfig;
use drover_kafka_listener::{SaslSsl, Security};
use drover_registry::{Registry, RegistryConfig};

use crate::kafka::{self, SecurityProtocol};
use crate::kafka_access::RegistryAccess;
use crate::plan::{Part, Plan};
use crate::services::ConfigArgs;
use crate::{data, welcome};

/// Longest wait for threads that are busy when everything else has ended.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);
/// Under which name `/readyz` tells of a process that has not begun.
const START: &str = "start";
/// Under which name `/readyz` tells of the log.
const LOG: &str = "log";
/// Under which name `/readyz` tells of the database, once a service of the process has opened it.
const DATABASE: &str = "database";

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

fn refusal(conflicts: Vec<Conflict>) -> anyhow::Error {
    let lines: String = conflicts.iter().map(|conflict| format!("\n  {conflict}")).collect();
    anyhow::anyhow!("{} addresses cannot be bound; --port-offset N moves all ports:{lines}", conflicts.len())
}

async fn serve(plan: Plan, data: PathBuf) -> anyhow::Result<()> {
    let (metrics, health, clock) = (Metrics::default(), Health::default(), Arc::new(SystemClock));
    let _telemetry = telemetry::install(&plan.shared.log, &plan.shared.otlp, &metrics)?;
    let parts = plan.bind().map_err(refusal)?;
    let shutdown = shutdown_on_signal()?;
    data::create(&data)?;
    process::register(&metrics, &*clock);
    let pki = plan.pki.clone().unwrap_or_else(|| data::pki_path(&data));
    let token = data::told_token_path(&data, &plan.shared.security);
    let login = plan.kafka.as_ref().map(|kafka| kafka.security).unwrap_or_default();
    let text = welcome::text(&parts, &data, &pki, token.as_deref(), login); // before any part takes its sockets
    // Until all parts are there to speak for themselves, the process is not ready.
    let starting = health.service(START);
    let admin = spawn_admin(&parts, &health, &metrics, &shutdown)?;
    // Taking the log's lock first keeps a second process from touching anything else in the directory.
    let log = bus::open(&plan.shared.bus, &data::bus_path(&data), clock.clone(), &plan.retained(), &metrics)?;
    let network = network(&plan, &data)?;
    network.register(&metrics);
    match plan.one_process {
        true => {
            drop(drover_registry::pki::ensure(&pki, &plan.shared.security.hostnames, &*clock).context("certificates")?);
            let RegistryConfig { master_keys, .. } = plan.layers.section(Registry::NAME)?;
            let keys = master_keys.unwrap_or_else(|| data::master_keys_path(&data));
            drover_registry::master_keys::ensure(&keys, &SystemRandom).context("master key of the registry")?;
        }
        false => refuse_missing_certificates(&plan, &pki)?,
    }
    let ready = health.service(LOG);
    if bus::prepare(&*log.bus, &plan.shared.bus, &ready, &shutdown).await?.is_none() {
        return Ok(());
    }
    let cassandra =
        Cassandra::new(plan.shared.cassandra.options().map_err(|(key, why)| anyhow::anyhow!("{key}: {why}"))?);
    let functions = Pool::in_processes(std::env::current_exe().context("this executable")?);
    let process = Process { log, network, data, clock, metrics, cassandra, functions, health };
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
    /// One for all services but the rules, whose engine has one like it for itself.
    functions: Pool,
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
        let (cassandra, health) = (self.cassandra.clone(), self.health.clone());
        let database = watching(dependency::watch_database(DATABASE, cassandra, health, shutdown.clone()));
        let others = watched.into_iter().map(|dependency| watching(dependency.watch(shutdown.clone())));
        others.chain([database]).collect()
    }

    fn tasks(&self, plan: Plan, parts: Vec<Part>, shutdown: &Shutdown) -> anyhow::Result<Vec<Task>> {
        let mut tasks = Vec::new();
        if let Some(part) = parts.iter().find(|part| part.name == kafka::SOCKET) {
            tasks.push(self.kafka(&plan, &part.sockets, shutdown)?);
        }
        let mut services = plan.services;
        for Part { name, sockets, .. } in parts {
            // The admin port runs already, and the Kafka listener.
            if let Some(place) = services.iter().position(|service| service.name == name) {
                tasks.push(self.service(services.swap_remove(place), sockets, shutdown)?);
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
            functions: self.functions.clone(),
            ready: self.health.service(service.name),
        };
        Ok(Task { name: service.name, body: (service.body)(ports, shutdown.clone()) })
    }

    fn kafka(&self, plan: &Plan, sockets: &Sockets, shutdown: &Shutdown) -> anyhow::Result<Task> {
        let listeners = sockets.take_tcp(kafka::SOCKET)?;
        let config = plan.kafka.clone().unwrap_or_default();
        let security = match config.security {
            SecurityProtocol::Plaintext => Security::Plaintext,
            SecurityProtocol::SaslSsl => Security::SaslSsl(self.kafka_access(plan, shutdown)?),
        };
        let config = config.listener(security);
        let metrics = drover_kafka_listener::Metrics::default();
        self.metrics.register(|registry| metrics.register(registry));
        let bus = self.log.embedded.clone().context("the Kafka listener serves the embedded log only")?;
        let stop = shutdown.clone().cancelled_owned();
        let body = async move { Ok(drover_kafka_listener::serve(listeners, bus, config, metrics, stop).await?) };
        Ok(Task { name: kafka::SOCKET, body: Box::pin(body) })
    }
}

impl Process {
    /// The certificate of the ingress, followed as there, and the registry's answers.
    fn kafka_access(&self, plan: &Plan, shutdown: &Shutdown) -> anyhow::Result<SaslSsl> {
        let IngressConfig { tls, .. } = plan.layers.section(Ingress::NAME)?;
        // Nobody here is known by a certificate.
        let tls = Tls::open(&TlsConfig { client_ca: None, ..tls })?;
        let tls = tls.context("kafka.security = \"sasl_ssl\" needs a certificate: ingress.tls.certificate")?;
        let administrator = self.network.admin_token().context("the Kafka listener needs the administrator's token")?;
        let authenticator = Arc::new(RegistryAccess::new(&self.network, administrator));
        tokio::spawn(shutdown.clone().run_until_cancelled_owned(tls.clone().follow()));
        Ok(SaslSsl { tls: Arc::new(move || tls.bare()), authenticator })
    }
}

fn watching(watch: impl Future<Output = ()> + Send + 'static) -> Task {
    let body = async {
        watch.await;
        Ok(())
    };
    Task { name: "dependencies", body: Box::pin(body) }
}
