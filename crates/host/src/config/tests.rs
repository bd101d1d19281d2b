//! Tests of the layers. The environment layer is tested with the real binary, whose environment a test may set.

use drover_types::ApiError;
use serde::Deserialize;

use super::*;
use crate::{ByteSize, Duration, ListenSpec};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Example {
    size: ByteSize,
    wait: Duration,
    nested: Nested,
    option: Option<u32>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nested {
    listen: Vec<std::net::SocketAddr>,
    retries: u8,
}

impl Default for Example {
    fn default() -> Self {
        let nested = Nested::default();
        Self { size: ByteSize::from_bytes(1024), wait: Duration::from_secs(1), nested, option: None }
    }
}

impl ServiceConfig for Example {
    fn listeners(&self) -> Vec<ListenSpec> {
        Vec::new()
    }

    fn check(&self) -> Result<(), ApiError> {
        if self.nested.retries <= 5 {
            return Ok(());
        }
        Err(ApiError::invalid("example.nested.retries", "is 6, at most 5 are allowed"))
    }
}

fn layers(text: &str, settings: &[&str]) -> (tempfile::NamedTempFile, Result<Layers, ConfigError>) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let settings: Vec<Setting> = settings.iter().map(|text| text.parse().expect("a setting")).collect();
    let layers = Layers::load(Some(file.path()), &settings);
    (file, layers)
}

fn refusal(text: &str, settings: &[&str]) -> String {
    let (file, layers) = layers(text, settings);
    let error = layers
        .and_then(|layers| {
            layers.unknown_sections(&["example"])?.refuse()?;
            layers.service::<Example>("example")
        })
        .expect_err("refused");
    error.to_string().replace(&file.path().display().to_string(), "FILE")
}

#[test]
fn later_layers_win_and_what_nobody_sets_has_its_default() {
    let text = "[example]\nsize = \"2KiB\"\nwait = \"5s\"\n[example.nested]\nretries = 2";
    let (_file, layers) = layers(text, &["example.wait=9s", "example.nested.listen=[\"127.0.0.1:1\"]"]);
    let layers = layers.expect("valid").with_default("example.option", 7).with_default("example.size", "1B");
    let example: Example = layers.service("example").expect("valid");
    let listen = vec!["127.0.0.1:1".parse().expect("an address")];
    assert_eq!(
        example,
        Example {
            size: ByteSize::from_bytes(2048),
            wait: Duration::from_secs(9),
            nested: Nested { listen, retries: 2 },
            option: Some(7),
        }
    );
    assert_eq!(layers.section::<Nested>("absent").expect("no section, no error"), Nested::default());
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
    for (text, settings, expected) in [
        ("[exampel]", [].as_slice(), "FILE: unknown key exampel; did you mean example?"),
        ("[example]\nsiez = \"1B\"", &[], "FILE: unknown key example.siez; did you mean size?"),
        ("[example.nested]\nretry = 1", &[], "FILE: unknown key example.nested.retry; did you mean retries?"),
        ("", &["example.nested.lisen=1"], "--set: unknown key example.nested.lisen; did you mean listen?"),
    ] {
        assert_eq!(refusal(text, settings), expected);
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stored {
    store: Store,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum Store {
    Memory(Nested),
    Disk { path: String },
}

impl Default for Store {
    fn default() -> Self {
        Self::Memory(Nested::default())
    }
}

#[test]
fn all_unknown_keys_are_told_at_once() {
    let text = "[example]\nsiez = \"1B\"\n[example.nested]\nretry = 1\nlisen = 2\n";
    let expected = "3 unknown keys:\n  FILE: unknown key example.nested.lisen; did you mean listen?\n  \
        FILE: unknown key example.nested.retry; did you mean retries?\n  \
        FILE: unknown key example.siez; did you mean size?";
    assert_eq!(refusal(text, &[]), expected);
    let (_file, tagged) = layers("[stored.store]\nkind = \"memory\"\nretris = 1\nlisten = []\nlist = 1\n", &[]);
    let told = tagged.expect("read").section::<Stored>("stored").expect_err("refused").to_string();
    for part in
        ["2 unknown keys", "stored.store.retris; did you mean retries?", "stored.store.list; did you mean listen?"]
    {
        assert!(told.contains(part), "{told}");
    }
    let (_file, other) = layers("[stored.store]\nkind = \"disk\"\npath = \"p\"\n", &[]);
    let stored: Stored = other.expect("read").section("stored").expect("no key of the other kind is missed");
    assert_eq!(stored, Stored { store: Store::Disk { path: "p".into() } });
}

#[test]
fn a_wrong_value_is_refused_with_its_place_and_what_would_be_right() {
    for (text, settings, expected) in [
        (
            "[example]\nwait = 5",
            [].as_slice(),
            "FILE: example.wait: invalid type: found signed int `5`, expected a duration with its unit, such as 250ms, 30s, 5m, 12h or 7d",
        ),
        (
            "",
            &["example.size=1KB"],
            "--set: example.size: \"1KB\" is not a size with its unit, such as 512B, 256KiB, 10MiB or 10GiB",
        ),
        ("[example.nested]\nretries = 6", &[], "FILE: example.nested.retries: is 6, at most 5 are allowed"),
        ("[example]\nwait = \"5s\"\n[example", &[], "FILE: line 3: unclosed table, expected `]`"),
    ] {
        assert_eq!(refusal(text, settings), expected);
    }
    let missing = Layers::load(Some(Path::new("/nonexistent/drover.toml")), &[]).expect_err("refused").to_string();
    assert!(missing.starts_with("/nonexistent/drover.toml: cannot be read: No such file"), "{missing}");
    assert!("nosection=1".parse::<Setting>().is_err() && "a.b".parse::<Setting>().is_err());
}

#[test]
fn shared_sections_are_checked() {
    for (setting, expected) in [
        ("bus.kind=kafka", "configuration: bus.kafka.brokers: no brokers are named"),
        ("bus.partitions=0", "--set: bus.partitions: is 0, allowed are 1 to 1024"),
        ("bus.partitions=1025", "--set: bus.partitions: is 1025, allowed are 1 to 1024"),
        ("log.level=a=b=c", "--set: log.level: \"a=b=c\" is not a level or a list of TARGET=LEVEL"),
        ("otlp.sample_ratio=1.5", "--set: otlp.sample_ratio: is 1.5, allowed are 0.0 to 1.0"),
        ("network.registry=nonsense", "--set: network: registry: \"nonsense\" is not http://HOST:PORT"),
    ] {
        let layers = Layers::load(None, &[setting.parse().expect("a setting")]).expect("read");
        assert_eq!(Shared::load(&layers).expect_err("refused").to_string(), expected);
    }
    let layers = Layers::load(None, &["network.registry=http://registry:7071".parse().expect("a setting")]);
    let shared = Shared::load(&layers.expect("read")).expect("valid");
    assert_eq!(shared.network.services["registry"][0].port_u16(), Some(7071));
}

#[test]
fn a_service_in_other_processes_has_one_replica_or_many() {
    let text = "[network]\ndeadline = \"3s\"\nregistry = \"http://r:7071\"\n\
        ingress = [\"http://a:7075\", \"http://b:7075\"]\n";
    let (_file, read) = layers(text, &[]);
    let shared = Shared::load(&read.expect("read")).expect("valid");
    let places = |name: &str| shared.network.services[name].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(places("registry"), ["http://r:7071/"]);
    assert_eq!(places("ingress"), ["http://a:7075/", "http://b:7075/"]);
    let (_file, again) = layers(&print(shared.sections()), &[]);
    assert_eq!(Shared::load(&again.expect("read")).expect("valid").network, shared.network);
}

#[test]
fn the_scheme_of_a_service_says_whether_there_is_tls() {
    let tls = "[network.tls]\ncertificate = \"c\"\nkey = \"k\"\nca = \"a\"\n";
    for (text, setting, expected) in [
        ("", "network.rules=https://r:1", "network: rules: https://r:1/ is not http://HOST:PORT, without network.tls"),
        (tls, "network.rules=http://r:1", "network: rules: http://r:1/ is not https://HOST:PORT, with network.tls"),
        ("", "network.rules=[]", "network: rules: has no replica; leave it out if it is in this process"),
        ("", "network.deadline=1ms", "network.deadline: is 1ms, allowed are 100ms to 5m"),
    ] {
        let (_file, read) = layers(text, &[setting]);
        let told = Shared::load(&read.expect("read")).expect_err("refused").to_string();
        assert!(told.ends_with(expected), "{told}");
    }
}

#[test]
fn the_admin_token_is_never_an_argument() {
    let (_file, flag) = layers("", &["security.admin_token=s3cret"]);
    let told = Shared::load(&flag.expect("read")).expect_err("refused").to_string();
    assert!(told.starts_with("--set: security.admin_token: everybody") && !told.contains("s3cret"), "{told}");
    let (_file, read) = layers("[security]\nadmin_token = \"s3cret\"\n", &[]);
    let shared = Shared::load(&read.expect("read")).expect("valid");
    assert_eq!(shared.security.admin_token.as_ref().map(Secret::expose), Some("s3cret"));
    assert!(!print(shared.sections()).contains("s3cret"));
}

#[test]
fn anonymous_on_is_on_for_loopback() {
    let (_file, read) = layers("", &["security.anonymous=on"]);
    assert_eq!(Shared::load(&read.expect("read")).expect("valid").security.anonymous, super::Anonymous::Loopback);
}

#[test]
fn printed_configuration_hides_secrets_and_can_be_read_again() {
    let settings = ["otlp.endpoint=http://collector:4317", "otlp.authorization=Bearer s3cret", "bus.partitions=4"];
    let settings = settings.map(|text| text.parse().expect("a setting"));
    let shared = Shared::load(&Layers::load(None, &settings).expect("read")).expect("valid");
    let printed = print(shared.sections());
    assert!(!printed.contains("s3cret") && printed.contains("authorization = \"(hidden)\""), "{printed}");
    assert!(!format!("{shared:?}").contains("s3cret"));
    let (_file, again) = layers(&printed, &[]);
    assert_eq!(Shared::load(&again.expect("read")).expect("valid").bus, shared.bus);
}
