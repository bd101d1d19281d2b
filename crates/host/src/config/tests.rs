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
            layers.refuse_unknown_sections(&["example"]).and_then(|()| layers.service::<Example>("example"))
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
        ("bus.kind=kafka", "--set: bus.kind: kafka is not supported yet; use embedded"),
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
    assert_eq!(shared.network.services["registry"].port_u16(), Some(7071));
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
