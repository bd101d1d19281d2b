//! The Kafka listener off loopback: TLS with the certificate of 8883, users as the registry knows them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::platform::Platform;
use crate::process::{Up, drover, free_offset};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// SaslHandshake and Metadata of all topics, both in version 0: key, version, id, no name of a client, and the rest.
const HANDSHAKE: &[u8] = b"\0\x11\0\0\0\0\0\x01\xff\xff\0\x05PLAIN";
const METADATA: &[u8] = b"\0\x03\0\0\0\0\0\x02\xff\xff\0\0\0\0";

struct Client(StreamOwned<ClientConnection, TcpStream>);

impl Client {
    fn connect(platform: &Platform) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = platform.data.path().join("pki/ca.pem");
        roots.add(CertificateDer::from_pem_file(ca).expect("made at the first start")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("it has them").with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TcpStream::connect(("127.0.0.1", 9092 + platform.up.offset)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("more than nothing");
        Self(StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("valid"), stream))
    }

    /// The answer to a frame; `None`: the connection is closed.
    fn ask(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let length = u32::try_from(frame.len()).expect("short").to_be_bytes();
        self.0.write_all(&[&length, frame].concat()).expect("sent");
        let mut length = [0; 4];
        self.0.read_exact(&mut length).ok()?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut answer).expect("the rest");
        Some(answer)
    }

    /// Whether this user and password are let in.
    fn is_known(&mut self, user: &str, password: &str) -> bool {
        assert!(self.ask(HANDSHAKE).is_some_and(|answer| answer.starts_with(&[0, 0, 0, 1, 0, 0])));
        self.ask(format!("\0{user}\0{password}").as_bytes()).is_some()
    }

    /// Whether the client is told of this topic.
    fn sees(&mut self, topic: &str) -> bool {
        let told = self.ask(METADATA).expect("an answer");
        told.windows(topic.len()).any(|window| window == topic.as_bytes())
    }
}

/// Open to all addresses.
fn start() -> Platform {
    let data = tempfile::tempdir().expect("a directory");
    let mut command = drover(&["up", "--set", "kafka.security=sasl_ssl", "--set", "kafka.listen=[\"0.0.0.0:9092\"]"]);
    let up = Up::start_at(free_offset(), command.arg("--data").arg(data.path()));
    Platform { up, data }
}

#[test]
fn tenants_come_with_their_tokens_and_find_what_is_their_own() {
    let platform = start();
    assert!(platform.up.printed.contains("-X security.protocol=SASL_SSL"), "{}", platform.up.printed);
    let token = |tenant: &str| {
        let made = platform.says(&["token", "create", "kafka", "--role", "viewer", "-n", tenant]);
        made.trim().to_owned()
    };
    let (default, work) = (token("default"), token("work"));
    let rule = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/hot-rooms.yaml");
    platform.says(&["rule", "apply", "-f", rule.to_str().expect("text")]);

    let mut client = Client::connect(&platform);
    assert!(client.is_known("default", &default));
    // The rule makes its topic after it is applied, and whose a topic is may be remembered for a few seconds.
    while !client.sees("home.hot-rooms") {}
    assert!(!client.sees("drover.telemetry"));
    let mut client = Client::connect(&platform);
    assert!(client.is_known("work", &work));
    assert!(!client.sees("home.hot-rooms") && !client.sees("drover.telemetry"));
    let admin = std::fs::read_to_string(platform.data.path().join("admin.token")).expect("made at the first start");
    let mut client = Client::connect(&platform);
    assert!(client.is_known("admin", admin.trim()));
    assert!(client.sees("home.hot-rooms") && client.sees("drover.telemetry"));

    let (work, admin) = (work.as_str(), admin.trim());
    for (user, password) in [("default", work), ("work", admin), ("admin", work), ("work", "drt_work.kafka.x")] {
        assert!(!Client::connect(&platform).is_known(user, password), "{user}");
    }
    assert!(platform.up.stop().success());
}

#[test]
fn a_connection_ends_after_its_token() {
    let platform = start();
    let token = platform.says(&["token", "create", "kafka", "--role", "viewer", "-n", "work"]);
    let mut client = Client::connect(&platform);
    assert!(client.is_known("work", token.trim()));
    platform.says(&["token", "delete", "kafka", "-n", "work"]);
    let mut byte = [0];
    assert_eq!(client.0.read(&mut byte).expect("the end, long before a minute has passed"), 0);
    assert!(!Client::connect(&platform).is_known("work", token.trim()));
}
