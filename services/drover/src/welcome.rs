//! What `drover up` prints when everything is ready: where things are, and what to try first.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use crate::data;
use crate::start::Part;

/// Width of the column of names.
const NAME_WIDTH: usize = 16;

/// The whole text; only commands whose listener is bound are in it.
pub fn text(parts: &[Part], data: &Path, pki: &Path) -> String {
    let ca = pki.join("ca.pem");
    let sockets = addresses(parts);
    let mut text = format!("\ndrover is ready\n  {:NAME_WIDTH$}{}\n", "data", data.display());
    line(&mut text, "admin token", &data::token_path(data).display().to_string());
    line(&mut text, "platform CA", &ca.display().to_string());
    for (key, addresses) in &sockets {
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        line(&mut text, key.strip_suffix(".listen").unwrap_or(key), &addresses.join("  "));
    }
    text.push_str("\nto try in a second terminal\n");
    for (key, command) in commands(data, &ca) {
        if let Some((_, addresses)) = sockets.iter().find(|(name, _)| *name == key)
            && let Some(address) = addresses.first()
        {
            let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
            let command = command.replace("HOST", &host).replace("PORT", &address.port().to_string());
            writeln!(text, "  {command}").expect("writing to a String does not fail");
        }
    }
    text.push('\n');
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    writeln!(text, "  {name:NAME_WIDTH$}{value}").expect("writing to a String does not fail");
}

fn addresses(parts: &[Part]) -> Vec<(&'static str, Vec<SocketAddr>)> {
    let specs =
        parts.iter().flat_map(|part| part.specs.iter().map(|spec| (spec.key, part.sockets.addresses(spec.name))));
    specs.filter(|(_, addresses)| !addresses.is_empty()).collect()
}

/// What to try, by the key of the listener it needs.
fn commands(data: &Path, ca: &Path) -> [(&'static str, String); 6] {
    let token = data::token_path(data);
    let publish = "-q 1 -t sensors/kitchen/climate -m '{\"temperature\": 31.5}'";
    [
        ("ingress.mqtt.listen", format!("mosquitto_pub -h HOST -p PORT {publish}")),
        ("ingress.mqtts.listen", format!("mosquitto_pub --cafile {} -h HOST -p PORT {publish}", ca.display())),
        ("kafka.listen", "kcat -b HOST:PORT -C -t drover.telemetry -e".to_owned()),
        (
            "gateway.listen",
            format!("curl -H \"authorization: Bearer $(cat {})\" http://HOST:PORT/api/v1/devices", token.display()),
        ),
        ("gateway.listen", format!("drover open --server http://HOST:PORT --token-file {}", token.display())),
        ("admin.listen", "curl http://HOST:PORT/metrics".to_owned()),
    ]
}
