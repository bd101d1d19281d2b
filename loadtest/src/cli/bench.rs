//! `drover-load bench`: as fast as the windows allow or at a pace, without a scenario.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use drover_load::bench::{self, Plan};
use drover_load::target::{Target, TlsFiles};
use drover_mqtt::Version;
use drover_types::Qos;

#[derive(Args)]
pub struct Bench {
    /// Broker: mqtt://HOST[:PORT] or mqtts://HOST[:PORT].
    #[arg(long, default_value = "mqtt://127.0.0.1:1883")]
    url: String,
    /// Clients that publish.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// Further clients that connect and stay silent.
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Further clients that subscribe to everything.
    #[arg(long, default_value_t = 0)]
    subscribers: usize,
    /// Messages a second of all publishing clients together; without it as fast as their windows allow.
    #[arg(long)]
    rate: Option<NonZeroU32>,
    /// A local address to connect from; several are taken in turn.
    #[arg(long = "source", value_name = "ADDRESS")]
    sources: Vec<IpAddr>,
    /// Unacknowledged messages of each client; at QoS 0 how many are written at once.
    #[arg(long, default_value = "10")]
    window: NonZeroU16,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=1))]
    qos: u8,
    /// Payload, in bytes.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long a client waits for a server that does not answer, in seconds; one that is too busy for it is asked again so long.
    #[arg(long, default_value_t = bench::PATIENCE.as_secs())]
    patience: u64,
    /// Speak MQTT 5 instead of 3.1.1.
    #[arg(long)]
    v5: bool,
    /// Topic; {i} is the client's number.
    #[arg(long, default_value = "load/{i}")]
    topic: String,
    /// Client identifier; {i} is the client's number.
    #[arg(long, default_value = "load-{i}")]
    client_id: String,
    /// User name; {i} is the client's number.
    #[arg(long)]
    user: Option<String>,
    #[arg(long)]
    password: Option<String>,
    /// Certificate of the authority that signed the server's (PEM), for mqtts.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Bench {
    fn plan(&self) -> anyhow::Result<Plan> {
        anyhow::ensure!(self.rate.is_none() || self.qos == 1, "--rate needs --qos 1, it is {}", self.qos);
        let files = TlsFiles { authority: self.ca.clone(), identity: None };
        Ok(Plan {
            target: Target::new(&self.url, &files)?,
            version: if self.v5 { Version::V5 } else { Version::V311 },
            clients: self.clients,
            idle: self.idle,
            subscribers: self.subscribers,
            rate: self.rate,
            sources: self.sources.clone(),
            window: self.window,
            qos: Qos::try_from(self.qos).map_err(anyhow::Error::msg)?,
            payload_bytes: self.payload,
            duration: Duration::from_secs(self.seconds),
            patience: Duration::from_secs(self.patience),
            topic: self.topic.clone(),
            client_id: self.client_id.clone(),
            user_name: self.user.clone(),
            password: self.password.clone(),
        })
    }

    /// Runs and prints; fails if a client stopped early.
    pub fn run(&self) -> anyhow::Result<ExitCode> {
        let plan = self.plan()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = runtime.block_on(bench::run(&plan));
        if self.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            println!("{report}");
        }
        let Some(failure) = report.failure() else { return Ok(ExitCode::SUCCESS) };
        // Whoever reads the report as JSON may look only here for the reason.
        eprintln!("drover-load: {failure}");
        Ok(ExitCode::FAILURE)
    }
}
