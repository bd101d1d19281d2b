//! Services in processes of their own over real Kafka, and what proves them to each other: the certificates of their network.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use drover_backends::kafka::Kafka;

use crate::cluster::over;
use crate::process::{drover, free_offset};

/// Longest wait for a process.
const PATIENCE: Duration = Duration::from_secs(120);
/// Where the others are, before the offset.
const REGISTRY: &str = "network.registry=https://127.0.0.1:7071";
const INGRESS: &str = r#"network.ingress=["https://127.0.0.1:7075"]"#;
/// CONNECT of MQTT 3.1.1: a clean session of client `d`, and its answer when it is accepted.
const CONNECT: [u8; 15] = *b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01d";
const ACCEPTED: [u8; 4] = [0x20, 2, 0, 0];

/// What the processes share.
struct Site<'a> {
    directory: &'a Path,
    brokers: String,
    offset: u16,
}

/// One of them; killed when dropped.
struct Process {
    child: Child,
    admin: u16,
}

impl Site<'_> {
    /// Starts a service that shows `certificate`, a file of the certificates' directory without its ending.
    fn start(&self, service: &str, certificate: &str, admin: u16, settings: &[&str]) -> Process {
        let pki = self.directory.join("pki").display().to_string();
        let shared = [
            format!("security.pki={pki}"),
            format!("security.admin_token_file={}", self.directory.join("admin.token").display()),
            format!("network.tls.certificate={pki}/{certificate}.pem"),
            format!("network.tls.key={pki}/{certificate}.key"),
            format!("network.tls.ca={pki}/network/ca.pem"),
            format!("admin.listen=[\"127.0.0.1:{admin}\"]"),
        ];
        let own = settings.iter().map(|setting| (*setting).to_owned());
        let mut command = drover(&[service, "--port-offset", &self.offset.to_string(), "--data"]);
        command.arg(self.directory.join(service)).args(over(&self.brokers));
        command.args(shared.into_iter().chain(own).map(|setting| format!("--set={setting}")));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the executable runs");
        Process { child, admin: admin + self.offset }
    }

    /// What the ingress answers to a device that connects.
    fn connack(&self) -> [u8; 4] {
        let mut device = TcpStream::connect(("127.0.0.1", 1883 + self.offset)).expect("it listens");
        device.write_all(&CONNECT).expect("sent");
        let mut answer = [0; 4];
        device.read_exact(&mut answer).expect("an answer");
        answer
    }
}

impl Process {
    /// Waits until `/readyz` has this status and says all of that.
    #[expect(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
    fn until(&mut self, status: u16, said: &[&str]) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("http://127.0.0.1:{}/readyz", self.admin);
        let (since, mut last) = (Instant::now(), String::new());
        loop {
            if let Ok(mut answer) = agent.get(&url).call() {
                last = answer.body_mut().read_to_string().expect("text");
                if answer.status() == status && said.iter().all(|part| last.contains(part)) {
                    return;
                }
            }
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "it ended with {ended:?}; at last it said {last}");
            assert!(since.elapsed() < PATIENCE, "not {status} with {said:?} within {PATIENCE:?}, but {last}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }
}

#[test]
fn processes_of_the_network_work_together_and_one_with_a_device_authoritys_certificate_is_kept_out() {
    let Some(kafka) = Kafka::start().expect("kafka starts") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let made = drover(&["init", "--data"]).arg(directory.path()).output().expect("the executable runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let site = Site { directory: directory.path(), brokers: kafka.brokers(), offset: free_offset() };
    let mut registry = site.start("registry", "network/service", 9464, &[INGRESS]);
    let mut ingress = site.start("ingress", "network/service", 9468, &[INGRESS, REGISTRY]);
    let elsewhere = r#"gateway.listen=["127.0.0.1:8082"]"#;
    let mut stranger = site.start("gateway", "server", 9469, &[REGISTRY, elsewhere]);
    registry.until(200, &["true"]);
    ingress.until(200, &["true"]);
    assert_eq!(site.connack(), ACCEPTED, "who a device is, the ingress asks the registry");
    let registry_at = format!("registry at https://127.0.0.1:{}/: ", 7071 + site.offset);
    // What the registry makes of the certificate of another authority, by TLS.
    stranger.until(503, &[registry_at.as_str(), "received fatal alert"]);
}
