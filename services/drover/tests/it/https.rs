//! Console, REST, live messages and the device side, all over TLS on one port; and what is refused there.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::platform::Platform;
use crate::process::{Up, drover, free_offset};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for a refusal: a handshake has ten seconds, and what is none is known by its first byte.
const REFUSAL: Duration = Duration::from_secs(5);
/// CONNECT of MQTT 3.1.1: a clean session of client `d`; and its answer when it is accepted.
const CONNECT: [u8; 15] = *b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d";
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];
/// Before a message of a client in one binary frame, masked with zeros (RFC 6455 section 5.2), and before one of the server.
const MASKED: [u8; 6] = [0x82, 0x80 | CONNECT.len() as u8, 0, 0, 0, 0];
const UNMASKED: [u8; 2] = [0x82, ACCEPTED.len() as u8];

/// The port, as a browser that trusts the platform's authority sees it.
struct Https {
    port: u16,
    ca: PathBuf,
    token: String,
}

impl Https {
    fn of(up: &Up, data: &Path) -> Self {
        let token = std::fs::read_to_string(data.join("admin.token")).expect("made at the first start");
        Self { port: 8443 + up.offset, ca: data.join("pki/ca.pem"), token: token.trim().to_owned() }
    }

    fn plain(&self, patience: Duration) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        stream.set_read_timeout(Some(patience)).expect("more than nothing");
        stream
    }

    fn connect(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).expect("made at the first start")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("it has them").with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("a name");
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("valid"), self.plain(PATIENCE))
    }

    /// The whole answer, head and body.
    fn ask(&self, request: &str, headers: &[(&str, &str)], body: &str) -> String {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let host = if headers.contains("host: ") { "" } else { "host: localhost:8443\r\n" };
        let length = body.len();
        let headers = format!("{host}{headers}connection: close\r\ncontent-length: {length}\r\n");
        let head = format!("{request} HTTP/1.1\r\n{headers}\r\n");
        let mut stream = self.connect();
        stream.write_all((head + body).as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer, and its end");
        answer
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }
}

/// A platform with a device `lamp`, which has posted 21.5 over TLS.
fn with_a_lamp() -> (Platform, Https) {
    let platform = Platform::start();
    let https = Https::of(&platform.up, platform.data.path());
    let created = platform.json(&["device", "create", "lamp"]);
    let bearer = format!("Bearer {}", created["token"].as_str().expect("a token"));
    let posted = https.ask("POST /v1/topics/sensors/lamp/climate?qos=1", &[("authorization", &bearer)], "21.5");
    assert!(posted.starts_with("HTTP/1.1 200"), "{posted}");
    (platform, https)
}

#[test]
fn rest_console_and_live_messages_are_where_devices_post() {
    let (_platform, https) = with_a_lamp();
    let bearer = https.bearer();
    let listed = https.ask("GET /api/v1/devices", &[("authorization", &bearer)], "");
    assert!(listed.starts_with("HTTP/1.1 200") && listed.contains("\"lamp\""), "{listed}");
    let mut live = https.connect();
    let open = "GET /api/v1/stream?filter=sensors/%23&from=earliest HTTP/1.1\r\nhost: localhost:8443\r\n";
    live.write_all(format!("{open}authorization: {bearer}\r\n\r\n").as_bytes()).expect("sent");
    let mut lines = BufReader::new(live).lines().map(|line| line.expect("an event in time"));
    lines.find(|line| line.starts_with("data: ") && line.contains("sensors/lamp/climate")).expect("the message");

    let nobody = https.ask("GET /", &[], "");
    assert!(nobody.starts_with("HTTP/1.1 401") && nobody.contains("drover open"), "{nobody}");
    let link = https.ask("POST /api/v1/console-links", &[("authorization", &bearer)], "");
    let (_, link) = link.split_once("\r\n\r\n").expect("a body");
    let link: Value = serde_json::from_str(link).expect("a link");
    let code = link["path"].as_str().and_then(|path| path.strip_prefix("/open#")).expect("a code");
    let opened = https.ask("POST /open", &[], code);
    let cookie = opened.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.starts_with("__Host-drover_session=") && cookie.ends_with("; Secure"), "{cookie}");
    let page = https.ask("GET /", &[("cookie", cookie.split(';').next().expect("a pair"))], "");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("lamp"), "{page}");
}

#[test]
fn mqtt_goes_over_a_websocket_where_the_console_is() {
    let platform = Platform::start();
    let mut stream = Https::of(&platform.up, platform.data.path()).connect();
    let open = "GET /mqtt HTTP/1.1\r\nhost: localhost:8443\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                sec-websocket-protocol: mqtt\r\n\r\n";
    stream.write_all(open.as_bytes()).expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(&[&MASKED[..], &CONNECT].concat()).expect("sent");
    let mut answer = [0; UNMASKED.len() + ACCEPTED.len()];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer.split_at(UNMASKED.len()), (&UNMASKED[..], &ACCEPTED[..]));
}

#[test]
fn foreign_pages_and_plain_text_are_refused_at_once() {
    let platform = Platform::start();
    let https = Https::of(&platform.up, platform.data.path());
    for (name, value, is_foreign) in [
        ("origin", "https://localhost:8443", false),
        ("origin", "https://evil.example", true),
        ("host", "evil.example:8443", true),
    ] {
        for request in ["GET /healthz", "GET /update?api_key=none"] {
            let answer = https.ask(request, &[(name, value)], "");
            assert_eq!(answer.starts_with("HTTP/1.1 403"), is_foreign, "{request} with {name} {value}: {answer}");
        }
    }
    let mut plain = https.plain(REFUSAL);
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("sent");
    let mut answer = Vec::new();
    let ended = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

#[test]
fn a_gateway_without_an_ingress_has_the_port_for_itself() {
    let data = tempfile::tempdir().expect("a directory");
    let mut command = drover(&["up", "--only", "registry,gateway", "--data"]);
    let up = Up::start_at(free_offset(), command.arg(data.path()));
    let https = Https::of(&up, data.path());
    let listed = https.ask("GET /api/v1/policies", &[("authorization", &https.bearer())], "");
    assert!(listed.starts_with("HTTP/1.1 200"), "{listed}");
    let posted = https.ask("POST /v1/topics/a", &[("authorization", &https.bearer())], "1");
    assert!(posted.starts_with("HTTP/1.1 404") && posted.contains("devices are served at"), "{posted}");
    assert!(up.stop().success());
}
