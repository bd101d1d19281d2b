//! What all devices of a fleet have in common, made once: addresses, credentials, generators.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Context;
use drover_mqtt::Version;
use drover_types::Qos;
use rustls::pki_types::ServerName;

use super::link::Secured;
use crate::payload::{Models, Template};
use crate::scenario::{Fleet, INDEX, Publish, Scenario, Tls};
use crate::target::{TlsFiles, tls_config};

/// What takes the place of a device's name.
const DEVICE: &str = "{device}";
/// Window of devices that only answer.
const ANSWERS_WINDOW: usize = 20;

/// A fleet, ready to run.
pub struct Plan {
    pub fleet: Fleet,
    /// Its number among the fleets.
    pub number: usize,
    /// Devices of the fleets before it: makes numbers of the scenario of the numbers of its devices.
    pub before: u64,
    pub address: SocketAddr,
    /// `HOST:PORT` as HTTP and WebSocket say it.
    pub authority: String,
    pub connections_per_source: u32,
    pub password: Option<String>,
    pub sends: Option<Sends>,
    pub seed: u64,
    tls: Option<(Tls, Secured)>,
}

/// What a fleet sends.
pub struct Sends {
    pub publish: Publish,
    pub qos: Qos,
    pub template: Template,
    pub models: Models,
    /// Index of the value that `timing = "change"` looks at.
    pub watched: Option<usize>,
    /// Gap between two messages or measurements, in microseconds of the clock; and the same of uploads, and of the
    /// longest silence.
    pub every_us: u64,
    pub upload_us: u64,
    pub at_most_us: u64,
    /// How much faster the devices' own time is.
    pub speed: u64,
}

impl Plan {
    /// Resolves the target, and reads the files that fleet `number` names.
    pub fn new(scenario: &Scenario, number: usize) -> anyhow::Result<Self> {
        let fleet = scenario.fleets[number].clone();
        let (target, protocol) = (&scenario.target, fleet.protocol);
        let (host, port) = target.place(&fleet);
        let address = resolve(&host, port)?;
        let tls = if protocol.is_tls() { Some((scenario.tls.clone(), secured(scenario, host)?)) } else { None };
        let password = fleet.password_file.as_deref().map(secret).transpose()?;
        let sends = fleet.publish.as_ref().map(|publish| Sends::new(scenario, &fleet, publish)).transpose()?;
        let authority = target.authority(&fleet);
        Ok(Self {
            number,
            before: scenario.fleets[..number].iter().map(|fleet| u64::from(fleet.devices)).sum(),
            address,
            authority,
            connections_per_source: target.connections_per_source,
            password,
            sends,
            seed: scenario.seed,
            tls,
            fleet,
        })
    }

    pub fn version(&self) -> Version {
        if self.fleet.v5 { Version::V5 } else { Version::V311 }
    }

    /// Whether the server is to keep a device's session over a lost connection (sections 3.1.2.4 and 3.1.2.11.2 of MQTT 5).
    pub fn keeps_sessions(&self) -> bool {
        !self.fleet.clean && (!self.fleet.v5 || self.fleet.session_expiry.us() >= 1_000_000)
    }

    /// Messages, or requests, that a device sends without waiting for an answer; one request over HTTP, and over CoAP (NSTART,
    /// RFC 7252 section 4.7).
    pub fn window(&self) -> usize {
        let of_messages = self.sends.as_ref().map_or(ANSWERS_WINDOW, |sends| usize::from(sends.publish.window));
        if self.fleet.protocol.is_mqtt() { of_messages } else { 1 }
    }

    /// The name of a device.
    pub fn device(&self, index: u32) -> String {
        self.fleet.device_name(index)
    }

    /// A text of the scenario as it is for one device.
    pub fn fill(&self, text: &str, index: u32) -> String {
        if !text.contains('{') {
            return text.to_owned();
        }
        text.replace(DEVICE, &self.device(index)).replace(INDEX, &index.to_string())
    }

    /// When a device connects first, in microseconds since the start.
    pub fn arrives_us(&self, index: u32) -> u64 {
        let arrive = self.fleet.arrive;
        arrive.after.us() + arrive.over.us() * u64::from(index) / u64::from(self.fleet.devices)
    }

    /// What TLS of one device begins with; reads its own certificate if it has one.
    pub fn secured(&self, index: u32) -> anyhow::Result<Option<Secured>> {
        let Some((tls, shared)) = &self.tls else { return Ok(None) };
        let own = |text: &Option<String>| text.as_ref().filter(|text| text.contains('{')).map(|t| self.fill(t, index));
        let Some((certificate, key)) = own(&tls.certificate).zip(own(&tls.key)) else {
            return Ok(Some(shared.clone()));
        };
        let identity = Some((PathBuf::from(certificate), PathBuf::from(key)));
        let config = tls_config(&TlsFiles { authority: tls.authority.clone(), identity })?;
        Ok(Some(Secured { config, name: shared.name.clone() }))
    }
}

impl Sends {
    fn new(scenario: &Scenario, fleet: &Fleet, publish: &Publish) -> anyhow::Result<Self> {
        let watched = publish.field.as_ref().and_then(|field| fleet.values.keys().position(|name| name == field));
        let template = Template::new(&publish.payload, &fleet.values).map_err(anyhow::Error::msg)?;
        Ok(Self {
            qos: Qos::try_from(publish.qos).map_err(anyhow::Error::msg)?,
            template,
            models: Models::new(fleet)?,
            watched,
            every_us: scenario.hurried_us(publish.every),
            upload_us: publish.upload.map_or(u64::MAX, |upload| scenario.hurried_us(upload)).max(1),
            at_most_us: publish.at_most.map_or(u64::MAX, |span| scenario.hurried_us(span)),
            speed: scenario.speed,
            publish: publish.clone(),
        })
    }
}

/// The first address of a host; one of IPv4 where it has both, as their sources can be spread.
fn resolve(host: &str, port: u16) -> anyhow::Result<SocketAddr> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs().with_context(|| format!("host {host:?}"))?.collect();
    let chosen = found.iter().find(|address| address.is_ipv4()).or(found.first());
    chosen.copied().with_context(|| format!("host {host:?} has no address"))
}

fn secured(scenario: &Scenario, host: String) -> anyhow::Result<Secured> {
    let Tls { authority, certificate, key } = &scenario.tls;
    let shared = |text: &Option<String>| text.clone().filter(|text| !text.contains('{')).map(PathBuf::from);
    let identity = shared(certificate).zip(shared(key));
    let config = tls_config(&TlsFiles { authority: authority.clone(), identity })?;
    Ok(Secured { config, name: ServerName::try_from(host)? })
}

/// A secret from its file, without the line's end. It is never shown.
fn secret(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(text.trim_end().to_owned())
}
