//! `cargo xtask backends`: Kafka and Cassandra for `deploy/local/run`, from the packages their projects publish.
//!
//! For trying things out on one machine; what they hold goes with them.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use drover_backends::cassandra::{self, Cassandra};
use drover_backends::kafka::Kafka;

/// Where they listen, on 127.0.0.1; the defaults are those of `deploy/local/*.toml`.
#[derive(Args)]
pub struct Options {
    #[arg(long, default_value_t = 9092)]
    kafka_port: u16,
    #[arg(long, default_value_t = 9042)]
    cassandra_port: u16,
    /// Starts nothing: writes what both need into DIR/kafka and DIR/cassandra, for `drover-load chaos`.
    #[arg(long, value_name = "DIR")]
    prepare: Option<PathBuf>,
    /// With --prepare: where clients find Kafka and Cassandra.
    #[arg(long, default_value = "127.0.0.1")]
    kafka_host: String,
    #[arg(long, default_value = "127.0.0.1")]
    cassandra_host: String,
}

/// Writes the files of both.
fn prepare(directory: &Path, options: &Options) -> anyhow::Result<()> {
    let [kafka, cassandra] = ["kafka", "cassandra"].map(|name| directory.join(name));
    for folder in [&kafka, &cassandra] {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let advertised = format!("{}:{}", options.kafka_host, options.kafka_port);
    ensure!(drover_backends::kafka::prepare(&kafka, &advertised)?, "Kafka cannot be had here");
    let told = cassandra::Options {
        port: Some(options.cassandra_port),
        advertised: Some(options.cassandra_host.clone()),
        ..cassandra::Options::default()
    };
    cassandra::prepare(&cassandra, &told).context("Cassandra cannot be had here")
}

/// Starts both, says where they are, and stops them at Ctrl-C or SIGTERM.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(directory) = &options.prepare {
        return prepare(directory, options);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Asked for first: a signal during the start must stop what has started.
    let signals = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        anyhow::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    });
    let (mut interrupt, mut terminate) = signals?;
    let kafka = Kafka::start_at(options.kafka_port)?.context("Kafka cannot be started here")?;
    println!("Kafka        {}", kafka.brokers());
    let options = cassandra::Options { port: Some(options.cassandra_port), ..cassandra::Options::default() };
    let cassandra = Cassandra::start(options).context("Cassandra cannot be started here")?;
    println!("Cassandra    {}", cassandra.address());
    println!("Ctrl-C stops both, and removes what they hold");
    runtime.block_on(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_processes_of_deploy_local_look_for_them_where_they_are_by_default() {
        let Options { kafka_port, cassandra_port, .. } = Line::parse_from(["backends"]).options;
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/local");
        let files = std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("an entry").path());
        let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
        assert!(!files.is_empty());
        for file in files {
            let text = std::fs::read_to_string(&file).expect("text");
            assert!(text.contains(&format!("brokers = \"127.0.0.1:{kafka_port}\"")), "{}", file.display());
            let database = format!("hosts = [\"127.0.0.1:{cassandra_port}\"]");
            assert_eq!(text.contains("kind = \"cassandra\""), text.contains(&database), "{}", file.display());
        }
    }
}
