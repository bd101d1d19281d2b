//! What `drover up` prints when everything is ready: where things are, and what to try first.
//!
//! Every command works as it is printed, in a shell in the same directory: what is not the default is in it.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use drover_types::TELEMETRY_TOPIC;

use crate::cli::connection::{
    DEFAULT_SERVER, DEFAULT_TOKEN_FILE, SERVER_VARIABLE, TOKEN_FILE_VARIABLE, TOKEN_VARIABLE,
};
use crate::kafka::SecurityProtocol;
use crate::kafka_access::ADMINISTRATOR;
use crate::plan::Part;

/// Width of the column of names.
const NAME_WIDTH: usize = 16;
/// What is said of a token that is in no file, which is never printed.
const CONFIGURED: &str = "security.admin_token of the configuration";
/// The example of the first rule; where it is not at hand, the rule itself goes in by standard input.
const RULE_FILE: &str = "deploy/examples/hot-rooms.yaml";
const RULE: &str = include_str!("../../../deploy/examples/hot-rooms.yaml");
/// Where the rule writes to.
const RULE_TOPIC: &str = "home.hot-rooms";
/// A message that the rule matches.
const PUBLISH: &str = "-q 1 -t sensors/kitchen/climate -m '{\"temperature\": 31.5}'";

/// The whole text; only commands whose listener is bound are in it. `token` is the file with the administrator's token,
/// if it is in one; `kafka` is what the Kafka listener asks for.
pub fn text(parts: &[Part], data: &Path, pki: &Path, token: Option<&Path>, kafka: SecurityProtocol) -> String {
    let ca = pki.join("ca.pem");
    let sockets = addresses(parts);
    let mut text = format!("\ndrover is ready\n  {:NAME_WIDTH$}{}\n", "data", data.display());
    line(&mut text, "admin token", &token.map_or(CONFIGURED.to_owned(), |file| file.display().to_string()));
    line(&mut text, "platform CA", &ca.display().to_string());
    for (key, addresses) in &sockets {
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        line(&mut text, key.strip_suffix(".listen").unwrap_or(key), &addresses.join("  "));
    }
    text.push_str("\nto try in a second terminal\n");
    for command in client_commands(&sockets, token).into_iter().chain(commands(&sockets, &ca, &kcat(kafka, &ca, token)))
    {
        writeln!(text, "  {command}").expect("writing to a String does not fail");
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

/// Listeners by their keys.
type Listening = [(&'static str, Vec<SocketAddr>)];

/// Where this machine reaches the listener of this key, if it is bound.
fn reachable(sockets: &Listening, key: &str) -> Option<SocketAddr> {
    let (_, addresses) = sockets.iter().find(|(name, _)| *name == key)?;
    let mut address = *addresses.first()?;
    if address.ip().is_unspecified() {
        address.set_ip([127, 0, 0, 1].into());
    }
    Some(address)
}

/// What to try next, mostly with the tools of others: a message that the rule matches, what the rule has made of it, and all
/// messages, of before and from now on.
fn commands(sockets: &Listening, ca: &Path, kcat: &str) -> Vec<String> {
    let ca = quoted(&ca.display().to_string());
    let publish = |address: SocketAddr| format!("-h {} -p {} {PUBLISH}", address.ip(), address.port());
    let at = |key| reachable(sockets, key);
    let gateway = at("gateway.listen"); // without it no rule has been applied
    let commands = [
        at("ingress.mqtt.listen").map(|mqtt| format!("mosquitto_pub {}", publish(mqtt))),
        at("ingress.mqtts.listen").map(|mqtts| format!("mosquitto_pub --cafile {ca} {}", publish(mqtts))),
        at("kafka.listen")
            .filter(|_| gateway.is_some())
            .map(|kafka| format!("{kcat} -b {kafka} -C -t {RULE_TOPIC} -X isolation.level=read_committed -e")),
        at("kafka.listen").map(|kafka| format!("{kcat} -b {kafka} -C -t {TELEMETRY_TOPIC} -e")),
        gateway.map(|_| format!("{} tail 'sensors/#'", executable())),
        at("admin.listen").map(|admin| format!("curl http://{admin}/metrics")),
    ];
    commands.into_iter().flatten().collect()
}

/// The program that reads the log, with what makes it known as the administrator where that is asked for.
fn kcat(security: SecurityProtocol, ca: &Path, token: Option<&Path>) -> String {
    match security {
        SecurityProtocol::Plaintext => "kcat".to_owned(),
        SecurityProtocol::SaslSsl => {
            let password = match token {
                Some(file) => format!("\"$(cat {})\"", quoted(&absolute(file).display().to_string())),
                None => format!("\"${TOKEN_VARIABLE}\""),
            };
            let ca = quoted(&ca.display().to_string());
            format!(
                "kcat -X security.protocol=SASL_SSL -X sasl.mechanism=PLAIN -X ssl.ca.location={ca} \
                 -X sasl.username={ADMINISTRATOR} -X sasl.password={password}"
            )
        }
    }
}

/// What to try with our own command line; what it cannot guess goes in front.
fn client_commands(sockets: &Listening, token: Option<&Path>) -> Vec<String> {
    let Some(gateway) = reachable(sockets, "gateway.listen") else { return Vec::new() };
    let mut commands = Vec::new();
    let (server, token) = (format!("http://{gateway}"), token.map(absolute));
    if token.is_none() {
        commands.push(format!("read -r {TOKEN_VARIABLE} && export {TOKEN_VARIABLE}"));
    }
    let unusual = token.filter(|token| *token != absolute(Path::new(DEFAULT_TOKEN_FILE)));
    let variables = [
        (server != DEFAULT_SERVER).then(|| format!("{SERVER_VARIABLE}={}", quoted(&server))),
        unusual.map(|token| format!("{TOKEN_FILE_VARIABLE}={}", quoted(&token.display().to_string()))),
    ];
    let variables: Vec<String> = variables.into_iter().flatten().collect();
    if !variables.is_empty() {
        commands.push(format!("export {}", variables.join(" ")));
    }
    let drover = executable();
    commands.push(format!("{drover} open"));
    commands.push(format!("{drover} device create thermo-1"));
    commands.push(match Path::new(RULE_FILE).exists() {
        true => format!("{drover} rule apply -f {RULE_FILE}"),
        false => format!("{drover} rule apply -f - <<'RULE'\n{RULE}RULE"),
    });
    commands
}

/// The executable as it was called, so that it is found again.
fn executable() -> String {
    let called = std::env::args().next().unwrap_or_else(|| "drover".to_owned());
    let path = PathBuf::from(&called);
    let here = std::env::current_dir().unwrap_or_default();
    quoted(&path.strip_prefix(&here).map_or(called, |short| short.display().to_string()))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:[]=@+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_find_the_token_where_the_configuration_has_put_it() {
        let sockets = [("gateway.listen", vec![SocketAddr::from(([127, 0, 0, 1], 8080))])];
        let first = |token: Option<&Path>| client_commands(&sockets, token).remove(0);
        assert!(first(Some(Path::new(DEFAULT_TOKEN_FILE))).ends_with(" open"), "nothing is to be said");
        assert_eq!(first(Some(Path::new("/run/secrets/t"))), "export DROVER_TOKEN_FILE=/run/secrets/t");
        assert_eq!(first(None), "read -r DROVER_TOKEN && export DROVER_TOKEN");
    }

    #[test]
    fn what_the_rule_has_written_is_read_where_it_can_be_applied() {
        assert!(RULE.contains(&format!("kafka: {{topic: {RULE_TOPIC},")), "{RULE}");
        let at = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
        let sockets = [("kafka.listen", at(9092)), ("gateway.listen", at(8080))];
        let topics = |sockets: &Listening| {
            let commands = commands(sockets, Path::new("ca.pem"), "kcat");
            [RULE_TOPIC, TELEMETRY_TOPIC].map(|topic| commands.iter().any(|command| command.contains(topic)))
        };
        assert_eq!((topics(&sockets), topics(&sockets[..1])), ([true, true], [false, true]));
    }

    #[test]
    fn where_a_password_is_asked_for_kcat_has_the_administrators() {
        assert_eq!(kcat(SecurityProtocol::Plaintext, Path::new("ca.pem"), None), "kcat");
        let known = kcat(SecurityProtocol::SaslSsl, Path::new("my ca.pem"), Some(Path::new("/run/t")));
        let options = "-X ssl.ca.location='my ca.pem' -X sasl.username=admin -X sasl.password=\"$(cat /run/t)\"";
        assert!(known.starts_with("kcat -X security.protocol=SASL_SSL") && known.ends_with(options), "{known}");
        let asked = kcat(SecurityProtocol::SaslSsl, Path::new("ca.pem"), None);
        assert!(asked.ends_with("-X sasl.password=\"$DROVER_TOKEN\""), "{asked}");
    }

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        assert_eq!(quoted("/tmp/a-b.c"), "/tmp/a-b.c");
        assert_eq!(quoted("my data/it's"), r"'my data/it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
