//! The one executable: services, `up`, and the command line.
//!
//! Outermost layer: parses the command line and calls what does the work. Exit codes: 0 done, 1 failed, 2 wrong usage; 3 to 6
//! what a command to a device that was waited for has come to ([`cli::NotDone`]).

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub mod cli;
mod crd;
mod data;
mod doctor;
mod init;
mod kafka;
mod kafka_access;
mod layers;
mod plan;
mod services;
mod start;
mod up;
mod welcome;

/// The command line of `drover`.
#[derive(Debug, Parser)]
#[command(name = "drover", version, about = "An open IoT platform: MQTT in, an ordered log, rules, Kafka out")]
#[command(arg_required_else_help = true, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `drover` can be told to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the whole platform in one process.
    Up(up::UpArgs),
    /// Runs the ingress as a process of its own.
    Ingress(services::ServiceArgs),
    /// Runs the registry as a process of its own.
    Registry(services::ServiceArgs),
    /// Shadows of devices; without a further word: runs the shadow service as a process of its own.
    Shadow(cli::shadow::Shadow),
    /// Runs the rules service as a process of its own.
    Rules(services::ServiceArgs),
    /// Runs the storage service as a process of its own.
    Storage(services::ServiceArgs),
    /// Runs the gateway as a process of its own.
    Gateway(services::ServiceArgs),
    /// Runs the Kubernetes operator as a process of its own.
    Operator(services::ServiceArgs),
    /// Makes what separate processes share: certificates and the administrator's token.
    Init(init::InitArgs),
    /// Prints or applies the custom resource definitions for Kubernetes.
    Crd(crd::CrdArgs),
    /// Says what is wrong with this machine and this installation, and what to do.
    Doctor(doctor::DoctorArgs),
    /// Prints the completions of a shell.
    Completions { shell: clap_complete::Shell },
    #[command(flatten)]
    Client(cli::ClientCommand),
}

/// Runs the command line; every failure is one clear line on stderr.
pub fn main() -> ExitCode {
    match Cli::parse().command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Up(up) => up.run(),
            Self::Ingress(service) => service.run("ingress"),
            Self::Registry(service) => service.run("registry"),
            Self::Shadow(shadow) => shadow.run(),
            Self::Rules(service) => service.run("rules"),
            Self::Storage(service) => service.run("storage"),
            Self::Gateway(service) => service.run("gateway"),
            Self::Operator(service) => service.run("operator"),
            Self::Init(init) => init.run(),
            Self::Crd(crd) => crd.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "drover", &mut script);
                cli::printing(|out| Ok(out.write_all(&script)?))
            }
            Self::Client(client) => client.run(),
        }
    }
}

/// A [`clap::Error`] is wrong usage (2), a [`cli::NotDone`] says which; everything else is a failure (1).
fn report(error: &anyhow::Error) -> ExitCode {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        eprintln!("{usage}");
        return ExitCode::from(2);
    }
    eprintln!("drover: {}", drover_host::told(error));
    error.downcast_ref::<cli::NotDone>().map_or(ExitCode::FAILURE, |not_done| ExitCode::from(not_done.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_can_run_as_a_process_of_its_own() {
        let command = Cli::command();
        for service in services::ALL {
            assert!(command.find_subcommand(service.name).is_some(), "drover {} is no command", service.name);
        }
    }
}
