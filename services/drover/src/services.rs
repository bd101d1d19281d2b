//! The list of services. To add one is to add a line.

use std::path::PathBuf;

use clap::Args;
use drover_host::config::{ConfigError, Layers, Setting};
use drover_host::{Entry, Service as _};

use crate::plan::Plan;
use crate::{layers, start};

/// Every service this executable can run, in the order in which they start.
pub const ALL: [Entry; 7] = [
    Entry::of::<drover_registry::Registry>(),
    Entry::of::<drover_ingress::Ingress>(),
    Entry::of::<drover_shadow::Shadow>(),
    Entry::of::<drover_rules::Rules>(),
    Entry::of::<drover_storage::Storage>(),
    Entry::of::<drover_gateway::Gateway>(),
    Entry::of::<drover_operator::Operator>(),
];

/// What is the whole platform outside of Kubernetes: the operator has nothing to do there.
pub fn platform() -> impl Iterator<Item = Entry> {
    ALL.into_iter().filter(|service| service.name != drover_operator::Operator::NAME)
}

/// Where the configuration comes from; the same for every service and for `up`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML); one file may hold the sections of all services.
    #[arg(long, value_name = "FILE", env = "DROVER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Sets one key, before the file and the environment; may be given several times.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<Setting>,
    /// Prints the configuration in force, secrets hidden, and exits.
    #[arg(long)]
    pub print_config: bool,
    /// Checks the configuration and exits.
    #[arg(long, conflicts_with = "print_config")]
    pub check_config: bool,
}

impl ConfigArgs {
    /// Reads every layer; a key that nobody knows is refused.
    pub fn layers(&self) -> Result<Layers, ConfigError> {
        let layers = Layers::load(self.config.as_deref(), &self.set)?;
        layers::refuse_unknown_keys(&layers)?;
        Ok(layers)
    }
}

/// `drover SERVICE`.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Directory of the service's files.
    #[arg(long, value_name = "DIR", default_value = "./drover-data")]
    data: PathBuf,
    /// Adds N to every port that the service binds, to those of `[network]` that it calls, and to those of the endpoints
    /// that the gateway tells to devices.
    #[arg(long, value_name = "N", default_value_t = 0)]
    port_offset: u16,
}

impl ServiceArgs {
    /// Runs the service of this name as a process of its own.
    pub fn run(self, name: &str) -> anyhow::Result<()> {
        let services = ALL.into_iter().filter(|service| service.name == name).collect();
        let layers = layers::with_admin_port(self.config.layers()?, name);
        let layers = layers::with_surroundings(layers, &self.data)?;
        let layers = layers::shift_network(layers::shift_ports(layers, self.port_offset)?, self.port_offset)?;
        let layers = layers::shift_endpoints(layers, self.port_offset)?;
        layers::refuse_lone_owners(name, &layers)?;
        start::run(Plan::new(services, layers)?, &self.config, self.data)
    }
}
