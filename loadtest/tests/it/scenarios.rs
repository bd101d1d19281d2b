//! Scenario files: the ready ones are valid, and what is wrong is told by field, limit and value.

use std::path::{Path, PathBuf};

use drover_load::scenario::{Protocol, Scenario};

fn ready() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

#[test]
fn every_ready_scenario_is_valid_has_thresholds_and_says_what_it_shows() {
    let files = ready();
    let names: Vec<_> = files.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    for expected in ["tado", "bboxx", "spiio", "million-idle", "storm", "soak", "shadow", "chaos"] {
        assert!(names.contains(&expected), "{expected} is missing");
    }
    for expected in ["chaos-network", "chaos-disk", "chaos-clock", "chaos-cluster", "coap"] {
        assert!(names.contains(&expected), "{expected} is missing");
    }
    for path in files {
        let scenario = Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("# Shows "), "{} begins with what it shows", path.display());
        assert!(!scenario.thresholds.is_empty() && !scenario.shows.is_empty(), "{}", path.display());
        assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(scenario.title.as_str()));
    }
}

/// A scenario with a line more at its top, and one more in its fleet.
fn with(top: &str, fleet: &str) -> String {
    let text = format!(
        "title = \"t\"\nduration = \"10s\"\n{top}\n[[fleet]]\nname = \"f\"\ndevices = 2\ndevice = \"d-{{i}}\"\n{fleet}\n"
    );
    Scenario::parse(&text).map_or_else(|error| error.to_string(), |_| "valid".to_owned())
}

#[test]
fn what_is_wrong_is_told_by_field_limit_and_value() {
    assert_eq!(with("", ""), "valid");
    assert_eq!(with("speed = 0", ""), "speed must be from 1 to 86400, but is 0");
    assert!(with("color = 1", "").contains("unknown field `color`"));
    assert!(with("", "colour = 1").contains("unknown field `colour`"));
    assert!(with("settle = \"5\"", "").contains("\"5\" is no time with its unit"));
    assert!(with("thresholds = [\"ack_p42 < 1s\"]", "").contains("\"ack_p42\""));
    assert!(
        with("", "publish = {topic = \"t\", every = \"1s\", qos = 2, payload = \"\"}")
            .contains("publish.qos must be from 0 to 1, but is 2")
    );
    assert!(with("", "publish = {topic = \"t\", every = \"10us\", payload = \"\"}").contains("publish.every"));
    assert!(
        with("", "publish = {topic = \"t\", every = \"1s\", payload = \"{x}\"}")
            .contains("made of known {names}, but is x")
    );
    assert!(with("", "protocol = \"mqtts\"").contains("tls.authority must be a file"));
    assert!(with("", "arrive = {over = \"11s\"}").contains("arrive must be over within `duration`, but is 11s"));
    assert!(with("ledger = true", "").contains("subscribers and readers with `ledger` must be from 1 to 16, but is 0"));
    assert!(
        with("", "protocol = \"http\"\nsubscribe = [{filter = \"a\"}]").contains("subscribe must be absent over HTTP")
    );
    assert!(with("", "network = {lag = [\"2s\", \"1s\"]}").contains("network.lag must be the least first, but is 1s"));
    assert!(with("", "network = {lag = [\"1s\", \"2m\"]}").contains("network.lag (ms) must be from 0 to 60000"));
    assert!(with("", "network = {loss = 1.0}").contains("network.loss must be from 0 to 0.9, but is 1"));
    assert!(with("", "promised = [\"g\"]").contains("promised must be names of fleets, but is g"));
    assert!(with("", "at = \":1\"").contains("at must be HOST or HOST:PORT, but is :1"));
    assert!(with("[chaos]\nfaults = []", "").contains("chaos.faults must be at least one kind"));
    let bound = |metric: &str, at_most: &str| with(&format!("[[bound]]\nmetric = '{metric}'\nat_most = {at_most}"), "");
    assert_eq!(bound("q{queue=\"log\"}", "1000"), "valid");
    assert!(bound("q{a=b}", "1").contains("bound.metric must be NAME or NAME{LABEL=\"VALUE\",…}, but is q{a=b}"));
    assert!(bound("q", "-1").contains("bound.at_most must be a number, at least 0, but is -1"));
    let batch = "publish = {topic = \"t\", every = \"1s\", timing = \"batch\", upload = \"2s\", payload = \"\"}";
    assert!(with("", batch).contains("publish.timing must be another than \"batch\""));
}

#[test]
fn a_target_and_a_scale_are_taken_from_outside() {
    let text = "title = \"t\"\nduration = \"10s\"\n[target]\nmetrics = \"http://127.0.0.1:{port:9464}/\"\n[[fleet]]\nname = \"f\"\n\
                devices = 1000\ndevice = \"d-{i}\"\nprotocol = \"http\"\n";
    let mut scenario = Scenario::parse(text).expect("valid");
    scenario.aim("broker.example:18080").expect("valid");
    assert_eq!((scenario.target.host.as_str(), scenario.target.port(Protocol::Http)), ("broker.example", 18_080));
    assert_eq!(scenario.target.port(Protocol::Mqtt), 11_883);
    assert_eq!(scenario.target.expand("http://x:{port:9464}/"), "http://x:19464/");
    assert_eq!(scenario.target.metrics, None, "they are of another server");
    scenario.aim("[::1]:8080").expect("valid");
    assert_eq!((scenario.target.host.as_str(), scenario.target.port(Protocol::Http)), ("::1", 8_080));
    scenario.scale(0.5, (0.1, 2.0)).expect("within bounds");
    assert_eq!(scenario.devices(), 500);
    let too_much = scenario.scale(3.0, (0.1, 2.0)).expect_err("beyond bounds").to_string();
    assert_eq!(too_much, "scale must be from 0.1 to 2, but is 3");
    for wrong in ["", ":1883", "h:port", "h:70000", "[::1", "[::1]1883"] {
        assert!(scenario.aim(wrong).is_err(), "{wrong:?}");
    }
}
