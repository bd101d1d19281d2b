//! What the process makes of its configuration before anything is checked: defaults from its surroundings, refusals of
//! what nobody knows, ports that are moved together.
//!
//! Pure: layers in, layers or an error out; nothing is opened or bound here.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use drover_gateway::{Gateway, GatewayConfig};
use drover_host::config::{
    Anonymous, BusConfig, BusKind, ConfigError, Layers, NetworkConfig, SecurityConfig, Shared, UnknownKeys,
};
use drover_host::{ListenSpec, Service, ServiceConfig, Transport, admin};
use drover_ingress::Ingress;
use drover_ingress::config::{IngressConfig, OwnersConfig};
use drover_operator::Operator;
use drover_registry::{Registry, RegistryConfig};
use drover_rules::Rules;
use drover_shadow::Shadow;
use drover_storage::Storage;

use crate::data;
use crate::kafka::{self, KafkaConfig};
use crate::services;

/// Listeners of devices, and the keys under which the gateway tells of them: MQTT, MQTT over TLS, HTTP.
const ENDPOINTS: [(&str, &str); 3] = [
    ("ingress.mqtt.listen", "gateway.mqtt_endpoint"),
    ("ingress.mqtts.listen", "gateway.mqtts_endpoint"),
    ("ingress.http.listen", "gateway.http_endpoint"),
];

/// Admin ports of services in processes of their own, several of which may be on one machine; `up` has that of
/// `[admin]`.
const ADMIN_PORTS: [(&str, u16); 7] = [
    (Registry::NAME, 9464),
    (Shadow::NAME, 9465),
    (Rules::NAME, 9466),
    (Storage::NAME, 9467),
    (Ingress::NAME, 9468),
    (Gateway::NAME, 9469),
    (Operator::NAME, 9470),
];

/// Adds the admin port of a process that is `service` alone.
pub fn with_admin_port(layers: Layers, service: &str) -> Layers {
    let Some((_, port)) = ADMIN_PORTS.into_iter().find(|(name, _)| *name == service) else { return layers };
    let listen: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    layers.with_default("admin.listen", listen)
}

/// Adds the defaults that services take from their surroundings: the data directory and `[security]`.
pub fn with_surroundings(layers: Layers, data: &Path) -> Result<Layers, ConfigError> {
    let registry: RegistryConfig = layers.section(Registry::NAME)?;
    let security: SecurityConfig = layers.section("security")?;
    let pki = registry.pki.or(security.pki).unwrap_or_else(|| data::pki_path(data));
    let layers = layers
        .with_default("registry.pki", &pki)
        .with_default("registry.master_keys", data::master_keys_path(data))
        .with_default("registry.anonymous", security.anonymous != Anonymous::Off)
        .with_default("registry.jwt", security.jwt)
        .with_default("ingress.anonymous", security.anonymous)
        .with_default("ingress.tls.certificate", pki.join("server.pem"))
        .with_default("ingress.tls.key", pki.join("server.key"))
        .with_default("ingress.tls.client_ca", pki.join("ca.pem"))
        .with_default("ingress.http.allowed_hosts", security.hostnames.clone())
        .with_default("gateway.allowed_hosts", security.hostnames);
    with_tls_of_devices(layers)
}

/// Adds the certificates of the ingress as those of the gateway.
fn with_tls_of_devices(mut layers: Layers) -> Result<Layers, ConfigError> {
    let IngressConfig { tls, .. } = layers.section(Ingress::NAME)?;
    for (key, file) in [
        ("gateway.tls.certificate", tls.certificate),
        ("gateway.tls.key", tls.key),
        ("gateway.tls.client_ca", tls.client_ca),
        ("gateway.tls.ticket_keys", tls.ticket_keys),
    ] {
        if let Some(file) = file {
            layers = layers.with_default(key, file);
        }
    }
    Ok(layers)
}

/// Adds the addresses of HTTPS of the ingress as those of the gateway of the same process: they share them.
pub fn with_shared_https(layers: Layers) -> Result<Layers, ConfigError> {
    let IngressConfig { https, .. } = layers.section(Ingress::NAME)?;
    Ok(layers.with_default("gateway.https.listen", https.listen))
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

/// Moves the ports at which the gateway says that devices connect. A name without a port stays as it is.
pub fn shift_endpoints(mut layers: Layers, offset: u16) -> Result<Layers, ShiftError> {
    let gateway: GatewayConfig = layers.section(Gateway::NAME)?;
    let told = [gateway.mqtt_endpoint, gateway.mqtts_endpoint, gateway.http_endpoint];
    for ((_, key), endpoint) in ENDPOINTS.into_iter().zip(told) {
        let Some((host, port)) = endpoint.rsplit_once(':') else { continue };
        let Ok(port) = port.parse::<u16>() else { continue };
        let shifted = port.checked_add(offset).ok_or(ShiftError::Beyond { port, offset })?;
        layers = layers.with_override(key, format!("{host}:{shifted}"));
    }
    Ok(layers)
}

/// The socket of the admin port, as configured.
pub fn admin_spec(shared: &Shared) -> ListenSpec {
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
