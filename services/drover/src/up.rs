//! `drover up`: all services in one process, on one data directory, with everything they need.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use drover_host::config::Setting;
use drover_host::{Service as _, SystemRandom};
use drover_operator::Operator;
use drover_shadow::Shadow;
use drover_types::Random;

use crate::Cli;
use crate::kafka::KafkaConfig;
use crate::layers::{self, ShiftError};
use crate::plan::Plan;
use crate::services::{self, ConfigArgs};
use crate::start;

/// The Kafka listener among the parts that `--disable` and `--only` name.
const KAFKA: &str = "kafka";
/// CoAP, over DTLS as well, among the parts that `--disable` names; it is one of the ways into the ingress, and comes with
/// it.
const COAP: &str = "coap";
/// A part of the contract that this version does not have: to leave it out is no mistake.
const SQL: &str = "sql";

/// `drover up`.
#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Directory of everything that is kept; made if missing.
    #[arg(long, value_name = "DIR", default_value = "./drover-data", conflicts_with = "ephemeral")]
    data: PathBuf,
    /// Keeps everything in a temporary directory, which is removed at the end.
    #[arg(long)]
    ephemeral: bool,
    /// Runs only these parts.
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = parts(), conflicts_with = "disable")]
    only: Vec<String>,
    /// Leaves these parts out.
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = parts_to_disable())]
    disable: Vec<String>,
    /// Also runs the Kubernetes operator: of the cluster that this is a pod of, or that KUBECONFIG names.
    #[arg(long)]
    operator: bool,
    /// Adds N to every port.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
    /// A further name by which this machine is called, for the server certificate; may be given several times.
    #[arg(long, value_name = "NAME")]
    hostname: Vec<String>,
}

fn parts() -> PossibleValuesParser {
    PossibleValuesParser::new(services::ALL.map(|service| service.name).into_iter().chain([KAFKA]))
}

fn parts_to_disable() -> PossibleValuesParser {
    PossibleValuesParser::new(services::ALL.map(|service| service.name).into_iter().chain([KAFKA, COAP, SQL]))
}

impl UpArgs {
    /// Runs until a signal.
    pub fn run(self) -> anyhow::Result<()> {
        let data = if self.ephemeral { temporary() } else { self.data.clone() };
        let _removal = self.ephemeral.then(|| Removal(data.clone()));
        if self.disable.iter().any(|part| part == SQL) {
            eprintln!("drover: --disable {SQL}: this version has no SQL listener, there is nothing to leave out");
        }
        let chosen = services::ALL.into_iter().filter(|service| self.runs(service.name)).collect();
        let mut config = self.config.clone();
        if !self.hostname.is_empty() {
            config.set.push(Setting::new("security.hostnames", &self.hostname));
        }
        let mut layers = layers::with_shared_https(layers::with_surroundings(config.layers()?, &data)?)?;
        if layers::is_embedded(&layers)? {
            // Nobody else reads this log.
            layers = layers.with_default("ingress.shadows", self.runs(Shadow::NAME));
        }
        if self.disable.iter().any(|part| part == COAP) {
            for key in ["ingress.coap.listen", "ingress.coaps.listen"] {
                layers = layers.with_override(key, Vec::<SocketAddr>::new());
            }
        }
        let layers = layers::shift_ports(layers, self.port_offset).map_err(usage)?;
        let mut plan = Plan::new(chosen, layers::with_endpoints(layers)?)?;
        plan.one_process = true;
        if self.runs(KAFKA) && plan.has_embedded_log() {
            plan.with_kafka(KafkaConfig::load(&plan.layers)?)?;
        }
        start::run(plan, &config, data)
    }

    fn runs(&self, part: &str) -> bool {
        let named = |parts: &[String]| parts.iter().any(|name| name == part);
        let wanted = match part {
            Operator::NAME => self.operator || named(&self.only),
            _ => self.only.is_empty() || named(&self.only),
        };
        wanted && !named(&self.disable)
    }
}

/// An offset too large is wrong usage; a configuration that cannot be used is not.
fn usage(error: ShiftError) -> anyhow::Error {
    match error {
        ShiftError::Beyond { .. } => Cli::command().error(ErrorKind::ValueValidation, error).into(),
        ShiftError::Config(error) => error.into(),
    }
}

/// A directory nobody else uses.
fn temporary() -> PathBuf {
    let mut name = [0; 8];
    SystemRandom.fill(&mut name);
    std::env::temp_dir().join(format!("drover-{:016x}", u64::from_be_bytes(name)))
}

/// Removes a directory at the end.
struct Removal(PathBuf);

impl Drop for Removal {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => eprintln!("drover: {} cannot be removed: {error}", self.0.display()),
        }
    }
}
