//! Devices that post over CoAP: against a server of a few lines that loses and delays, and against `drover up`.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coap_lite::{CoapOption, MessageClass, MessageType, Packet, RequestType, ResponseType};
use drover_load::chaos::free_offset;
use drover_load::guarded::Guarded;

use crate::chaos::drover;
use crate::runs::{run, said};

/// Message ids of the server's own.
const OWN_IDS: u16 = 30_000;
/// How long `drover up` may take to start, in looks.
const LOOKS_MAX: usize = 1_500;
const LOOK: Duration = Duration::from_millis(20);

/// What the server has seen.
#[derive(Default)]
struct Log {
    /// How often each request has come, by its `id`.
    requests: HashMap<String, u32>,
    paths: Vec<String>,
    tokens: Vec<Vec<u8>>,
    /// Acknowledgements of separate answers.
    acknowledged: usize,
    confirmable: usize,
}

/// How a request is treated; `None`: as one of another kind than POST.
fn answers(packet: &Packet, log: &mut Log, code: ResponseType, loses: bool) -> Option<Vec<Packet>> {
    let (kind, id) = (packet.header.get_type(), packet.header.message_id);
    if kind == MessageType::Acknowledgement {
        log.acknowledged += 1;
        return None;
    }
    if packet.header.code != MessageClass::Request(RequestType::Post) {
        return None;
    }
    let all = |option| packet.get_option(option).into_iter().flatten().cloned().collect::<Vec<Vec<u8>>>();
    let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
    let path: Vec<String> = all(CoapOption::UriPath).iter().map(text).collect();
    log.paths.push(path.join("/"));
    log.tokens.extend(all(CoapOption::Unknown(65_003)));
    log.confirmable += usize::from(kind == MessageType::Confirmable);
    let times = log.requests.entry(all(CoapOption::UriQuery).iter().map(text).collect()).or_default();
    *times += 1;
    let answer = |kind, message_id| {
        let mut answer = Packet::new();
        answer.header.set_type(kind);
        answer.header.message_id = message_id;
        answer.header.code = MessageClass::Response(code);
        answer.set_token(packet.get_token().to_vec());
        answer
    };
    if kind == MessageType::NonConfirmable {
        return Some(Vec::new());
    }
    Some(match id % 5 {
        // Lost, the first time.
        0 if loses && *times == 1 => Vec::new(),
        1 => {
            let mut taken = Packet::new();
            taken.header.set_type(MessageType::Acknowledgement);
            taken.header.code = MessageClass::Empty;
            taken.header.message_id = id;
            vec![taken, answer(MessageType::Confirmable, OWN_IDS + id)]
        }
        _ => vec![answer(MessageType::Acknowledgement, id)],
    })
}

/// Serves until the test ends, with this code; perhaps loses some requests the first time.
fn serve(code: ResponseType, loses: bool) -> (SocketAddr, Arc<Mutex<Log>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let (address, log) = (socket.local_addr().expect("bound"), Arc::new(Mutex::new(Log::default())));
    let shared = log.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4_096];
        while let Ok((bytes, peer)) = socket.recv_from(&mut buffer) {
            let packet = Packet::from_bytes(&buffer[..bytes]).expect("a valid client");
            let answers = answers(&packet, &mut shared.lock().expect("no panic"), code, loses).unwrap_or_default();
            for answer in answers {
                socket.send_to(&answer.to_bytes().expect("it fits"), peer).expect("sent");
            }
        }
    });
    (address, log)
}

/// Ten devices over CoAP that send five messages a second each; `publish` is more of what they send.
fn scenario(thresholds: &str, publish: &str) -> String {
    format!(
        r#"
        title = "coap"
        duration = "2s"
        settle = "60s"
        thresholds = [{thresholds}]
        [[fleet]]
        name = "meters"
        devices = 10
        device = "m-{{i}}"
        protocol = "coap"
        password_file = "token"
        [fleet.publish]
        topic = "energy/{{i}}/now"
        every = "200ms"
        payload = '{{"n":{{n}}}}'
        {publish}
        "#
    )
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "secret-1\n").expect("written");
    folder
}

#[test]
fn a_request_is_sent_again_until_it_is_answered_also_by_an_answer_of_its_own() {
    let ((address, log), folder) = (serve(ResponseType::Changed, true), folder());
    let text = scenario("\"acknowledged_share == 1\", \"errors == 0\"", "");
    let (output, report) = run(folder.path(), &text, &["--target", &address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("secret-1"));
    let report = report.expect("a report");
    assert!(report.errors.contains_key("coap request sent again"), "{:?}", report.errors);
    assert!(report.metrics["ack_max"] > 1.9, "a lost request waits for its repeat: {:?}", report.metrics);
    let log = log.lock().expect("no panic");
    assert_eq!(log.requests.len() as f64, report.metrics["acknowledged"]);
    assert!(log.requests.values().any(|times| *times == 2) && log.acknowledged > 0);
    assert!(log.paths.iter().any(|path| path == "t/energy/3/now"), "{:?}", log.paths);
    assert!(log.tokens.len() == log.paths.len() && log.tokens.iter().all(|token| token == b"secret-1"));
}

#[test]
fn datagrams_that_the_network_loses_are_sent_again() {
    let ((address, log), folder) = (serve(ResponseType::Changed, false), folder());
    let text = scenario("\"acknowledged_share == 1\", \"errors == 0\"", "");
    let text = text.replace("protocol = \"coap\"", "protocol = \"coap\"\nnetwork = { loss = 0.1 }");
    let (output, report) = run(folder.path(), &text, &["--target", &address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let report = report.expect("a report");
    assert!(report.errors.contains_key("coap request sent again"), "{:?}", report.errors);
    assert_eq!(log.lock().expect("no panic").requests.len() as f64, report.metrics["acknowledged"]);
}

#[test]
fn at_qos_0_nothing_is_confirmable_and_a_refusal_is_told_by_its_code() {
    let ((address, log), own) = (serve(ResponseType::Changed, false), folder());
    let text = scenario("\"acknowledged_share == 1\", \"errors == 0\"", "qos = 0");
    let (output, _) = run(own.path(), &text, &["--target", &address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(log.lock().expect("no panic").confirmable, 0);

    let ((address, _), own) = (serve(ResponseType::Forbidden, false), folder());
    let (output, report) = run(own.path(), &scenario("\"refused == 0\"", ""), &["--target", &address.to_string()]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(report.expect("a report").errors.contains_key("coap 4.03"), "{}", said(&output));
}

#[test]
fn what_coap_cannot_carry_is_refused_before_anything_starts() {
    let folder = folder();
    let wrong = [
        (scenario("", "pad = 2000"), "pad (bytes) must be from 0 to 1024, but is 2000"),
        (scenario("", "").replace("password_file = \"token\"\n", ""), "password_file must be a file with a token"),
        (scenario("", "timing = \"batch\"\nupload = \"1s\""), "timing must be another than \"batch\""),
    ];
    for (text, why) in wrong {
        let (output, _) = run(folder.path(), &text, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(why), "{}", said(&output));
    }
}

/// Makes a device, as soon as the platform takes one; its token.
#[allow(clippy::disallowed_methods, reason = "no runtime here: this waits for another process")]
fn token(drover: &Path, data: &Path, offset: i32) -> String {
    let mut command = Command::new(drover);
    command.args(["device", "create", "meters", "-o", "json"]);
    command.env("DROVER_SERVER", format!("http://127.0.0.1:{}", 8080 + offset));
    command.env("DROVER_TOKEN_FILE", data.join("admin.token"));
    let mut output = command.output().expect("it starts");
    for _ in 0..LOOKS_MAX {
        if output.status.success() {
            break;
        }
        std::thread::sleep(LOOK);
        output = command.output().expect("it starts");
    }
    assert!(output.status.success(), "{}", said(&output));
    let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    made["token"].as_str().expect("a token").to_owned()
}

#[test]
fn drover_up_acknowledges_every_message_once_it_is_durable() {
    let Some(drover) = drover() else { return };
    let folder = folder();
    let (data, offset) = (folder.path().join("data"), free_offset(17).expect("free ports"));
    let mut command = Command::new(&drover);
    command.arg("up").arg("--data").arg(&data).args(["--port-offset", &offset.to_string()]);
    let _running = Guarded::start(command.stdout(Stdio::null()).stderr(Stdio::null())).expect("it starts");
    std::fs::write(folder.path().join("token"), token(&drover, &data, offset)).expect("written");
    let text = scenario("\"acknowledged_share == 1\", \"errors == 0\", \"acknowledged > 80\"", "");
    let (output, _) = run(folder.path(), &text, &["--target", &format!("127.0.0.1:{}", 5683 + offset)]);
    assert!(output.status.success(), "{}", said(&output));
}
