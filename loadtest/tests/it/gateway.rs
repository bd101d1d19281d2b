//! Devices that upload batches over HTTP, against a server of a few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::runs::{run, said};

/// Requests by their first line, with their authorization and body.
type Log = Arc<Mutex<Vec<(String, String, String)>>>;

/// Answers every request as kept, on threads that end with the test.
fn serve() -> (SocketAddr, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, log) = (listener.local_addr().expect("bound"), Log::default());
    let shared = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let log = shared.clone();
            std::thread::spawn(move || while answer(&stream, &log).is_some() {});
        }
    });
    (address, log)
}

/// One request and its answer; `None` when the client is gone.
fn answer(mut stream: &TcpStream, log: &Log) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, stream);
    let (mut first, mut authorization, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        match name {
            "Content-Length" => length = value.parse().ok()?,
            "Authorization" => value.clone_into(&mut authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let answer = format!("{{\"kept\":{}}}", body.lines().count());
    log.lock().expect("no panic").push((first.trim_end().to_owned(), authorization, body));
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).ok()
}

/// Five devices over HTTP with a token from a file; `publish` is more of what they send.
fn scenario(publish: &str) -> String {
    format!(
        r#"
        title = "gateway"
        duration = "2s"
        thresholds = ["acknowledged_share == 1", "errors == 0"]
        [[fleet]]
        name = "meters"
        devices = 5
        device = "m-{{i}}"
        protocol = "http"
        password_file = "token"
        [fleet.publish]
        topic = "energy/{{i}}"
        every = "100ms"
        payload = '{{"n":{{n}}}}'
        {publish}
        "#
    )
}

#[test]
fn measurements_are_uploaded_together_and_each_is_acknowledged() {
    let ((address, log), folder) = (serve(), tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("token"), "secret-1\n").expect("written");
    let text = scenario("timing = \"batch\"\nupload = \"500ms\"");
    let (output, report) = run(folder.path(), &text, &["--target", &address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("secret-1"));
    let requests = log.lock().expect("no panic").clone();
    let is_upload = |(first, authorization, _): &(String, String, String)| {
        first == "POST /v1/batch HTTP/1.1" && authorization == "Bearer secret-1"
    };
    assert!(requests.iter().all(is_upload) && requests.len() >= 15, "{requests:?}");
    let rows: Vec<serde_json::Value> = requests
        .iter()
        .flat_map(|(_, _, body)| body.lines())
        .map(|row| serde_json::from_str(row).expect("JSON"))
        .collect();
    assert_eq!(rows.len() as f64, report.expect("a report").metrics["acknowledged"]);
    let own: Vec<_> = rows.iter().filter(|row| row["device"] == "m-3").collect();
    let numbers: Vec<_> = own.iter().filter_map(|row| row["payload"]["n"].as_u64()).collect();
    assert_eq!(numbers, (0..own.len() as u64).collect::<Vec<_>>(), "in order, and each once");
    assert!(own.iter().all(|row| row["topic"] == "energy/3" && row["time"].is_u64() && row["id"].is_string()));
}

#[test]
fn single_messages_are_posted_to_their_topics() {
    let ((address, log), folder) = (serve(), tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("token"), "secret-1\n").expect("written");
    let (output, _) = run(folder.path(), &scenario(""), &["--target", &address.to_string()]);
    assert!(output.status.success(), "{}", said(&output));
    let requests = log.lock().expect("no panic").clone();
    let posted = |(first, _, _): &&(String, String, String)| first == "POST /v1/topics/energy/2?qos=1 HTTP/1.1";
    assert!(requests.iter().filter(posted).count() >= 19, "{requests:?}");
}
