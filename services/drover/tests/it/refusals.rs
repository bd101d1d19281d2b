//! Bad input: one clear text that says what, where and what to do; and an exit code that is not 0.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::process::{Up, drover, drover_by_permission, free_offset, one_line, refused, refused_on, run};

/// A command that never gets as far as to bind anything.
fn checked(arguments: &[&str]) -> Command {
    drover(&[&["up", "--check-config"], arguments].concat())
}

#[test]
fn wrong_flags_are_wrong_usage() {
    for arguments in [
        ["up", "--prot-offset=1"],
        ["up", "--only=mqtt"],
        ["up", "--only=coap"],
        ["up", "--disable=nothing"],
        ["up", "--set=x"],
    ] {
        refused(&mut drover(&arguments), 2);
    }
    let said = refused(&mut drover(&["up", "--port-offset", "60000"]), 2);
    assert!(said.contains("--port-offset 60000 moves port") && said.contains("beyond 65535"), "{said}");
}

#[test]
fn an_unknown_key_is_named_with_its_layer_and_the_nearest_known_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("drover.toml");
    std::fs::write(&file, "[bus]\nkind = \"embedded\"\npartition = 4\n").expect("written");
    let path = file.display().to_string();
    let said = refused(&mut checked(&["--config", &path]), 1);
    assert_eq!(one_line(&said), format!("drover: {path}: unknown key bus.partition; did you mean partitions?"));
    let said = refused(checked(&[]).env("DROVER_BUS__PARTITION", "4"), 1);
    let expected = "drover: environment DROVER_BUS__PARTITION: unknown key bus.partition; did you mean partitions?";
    assert_eq!(one_line(&said), expected);
    let said = refused(&mut checked(&["--set", "registri.partitions=4"]), 1);
    assert_eq!(one_line(&said), "drover: --set: unknown key registri; did you mean registry?");
}

#[test]
fn all_unknown_keys_are_told_at_once_each_with_its_layer() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("drover.toml");
    std::fs::write(&file, "[bus]\npartition = 4\nretentoin = \"1d\"\n[ingres]\nx = 1\n").expect("written");
    let path = file.display().to_string();
    let mut command = checked(&["--config", &path, "--set", "gateway.listn=[]"]);
    command.env("DROVER_REGISTRY__STORE__KIND", "embedded").env("DROVER_REGISTRY__STORE__CASH", "1MiB");
    let said = refused(&mut command, 1);
    let expected = [
        "drover: 5 unknown keys:".to_owned(),
        format!("  {path}: unknown key ingres; did you mean ingress?"),
        format!("  {path}: unknown key bus.partition; did you mean partitions?"),
        format!("  {path}: unknown key bus.retentoin; did you mean retention?"),
        "  environment DROVER_REGISTRY__STORE__CASH: unknown key registry.store.cash; did you mean cache?".to_owned(),
        "  --set: unknown key gateway.listn; did you mean listen?".to_owned(),
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_wrong_value_is_named_with_its_layer_and_what_is_allowed() {
    for (setting, expected) in [
        (
            "bus.kafka.replication_factor=x",
            "--set: bus.kafka.replication_factor: invalid type: found string \"x\", expected u16",
        ),
        ("bus.kind=\"kafka\"", "configuration: bus.kafka.brokers: no brokers are named"),
        ("registry.partitions=0", "--set: registry.partitions: is 0, allowed are 1 to 1024"),
        ("kafka.offsets_retention=\"59s\"", "--set: kafka.offsets_retention: is 59s, allowed is 1m or more"),
        (
            "kafka.listen=[\"0.0.0.0:9092\"]",
            "--set: kafka.listen: 0.0.0.0:9092 is not a loopback address; the listener has no authentication, so only 127.0.0.1 and ::1 are allowed; kafka.security = \"sasl_ssl\" turns it on",
        ),
    ] {
        assert_eq!(one_line(&refused(&mut checked(&["--set", setting]), 1)), format!("drover: {expected}"));
    }
    let missing = refused(&mut checked(&["--config", "/nonexistent/drover.toml"]), 1);
    assert!(
        one_line(&missing).starts_with("drover: /nonexistent/drover.toml: cannot be read: No such file"),
        "{missing}"
    );
}

#[test]
fn the_layers_win_in_their_order_and_the_result_can_be_printed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("drover.toml");
    std::fs::write(&file, "[bus]\npartitions = 2\nretention = \"1d\"\n[log]\nlevel = \"warn\"\n").expect("written");
    let mut command = drover(&["up", "--print-config", "--set", "log.level=debug", "--config"]);
    let output = command.arg(&file).env("DROVER_BUS__PARTITIONS", "3").env("DROVER_LOG__LEVEL", "error").output();
    let printed = String::from_utf8(output.expect("runs").stdout).expect("text");
    for line in ["partitions = 3", "retention = \"1d\"", "level = \"debug\"", "retention_size = \"10GiB\""] {
        assert!(printed.lines().any(|printed| printed == line), "{line} in {printed}");
    }
    let again = directory.path().join("printed.toml");
    std::fs::write(&again, &printed).expect("written");
    assert!(run(&["up", "--check-config", "--config", &again.display().to_string()]).status.success());
}

#[test]
fn the_printed_ports_are_those_that_would_be_bound() {
    let printed = |arguments: &[&str]| {
        let output = run(&[&["up", "--print-config"], arguments].concat());
        toml(&String::from_utf8(output.stdout).expect("text"))
    };
    let (plain, shifted) = (printed(&[]), printed(&["--port-offset", "20000"]));
    for key in [
        "registry.listen",
        "ingress.mqtt.listen",
        "ingress.mqtts.listen",
        "ingress.https.listen",
        "gateway.listen",
        "gateway.https.listen",
        "kafka.listen",
        "admin.listen",
    ] {
        let port = |line: &str| line.split(':').nth(1).and_then(|rest| rest.split('"').next()?.parse::<u16>().ok());
        let (plain, shifted) = (port(&plain[key]), port(&shifted[key]));
        assert_eq!(plain.expect("a port") + 20_000, shifted.expect("a port"), "{key}");
    }
    assert!(shifted["gateway.mqtt_endpoint"].contains("127.0.0.1:21883"), "{shifted:?}");
}

#[test]
fn a_gateway_of_its_own_tells_devices_the_ports_that_are_moved_with_it() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/local/gateway.toml");
    let output = run(&["gateway", "--print-config", "--port-offset", "10000", "--config", config]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = toml(&String::from_utf8(output.stdout).expect("text"));
    for (key, port) in [("mqtt_endpoint", 11_883), ("mqtts_endpoint", 18_883), ("http_endpoint", 18_081)] {
        assert_eq!(printed[&format!("gateway.{key}")], format!("\"127.0.0.1:{port}\""), "{key}");
    }
    let named = ["--set", "gateway.mqtt_endpoint=broker.example.org", "--config", config];
    let output = run(&[&["gateway", "--print-config", "--port-offset", "10000"][..], &named].concat());
    let printed = toml(&String::from_utf8(output.stdout).expect("text"));
    assert_eq!(printed["gateway.mqtt_endpoint"], "\"broker.example.org\"", "there is no port to move");
}

#[test]
fn a_service_of_its_own_has_an_admin_port_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("others.toml");
    let others = ["registry", "ingress", "shadow", "rules", "storage", "gateway", "operator"];
    let network: String = others.iter().map(|name| format!("{name} = \"http://127.0.0.1:7999\"\n")).collect();
    std::fs::write(&file, format!("[network]\n{network}")).expect("written");
    let admin = |service: &str, arguments: &[&str]| {
        let output =
            drover(&[service, "--print-config", "--config"]).arg(&file).args(arguments).output().expect("runs");
        assert!(output.status.success(), "{service}: {}", String::from_utf8_lossy(&output.stderr));
        toml(&String::from_utf8(output.stdout).expect("text"))["admin.listen"].clone()
    };
    for (service, port) in [
        ("up", 9464),
        ("registry", 9464),
        ("shadow", 9465),
        ("rules", 9466),
        ("storage", 9467),
        ("ingress", 9468),
        ("gateway", 9469),
        ("operator", 9470),
    ] {
        assert_eq!(admin(service, &[]), format!("[\"127.0.0.1:{port}\", \"[::1]:{port}\"]"), "{service}");
        let moved = port + 100;
        let listen = admin(service, &["--port-offset", "100"]);
        assert_eq!(listen, format!("[\"127.0.0.1:{moved}\", \"[::1]:{moved}\"]"), "{service}");
        let listen = admin(service, &["--set", "admin.listen=[\"127.0.0.1:1\"]"]);
        assert_eq!(listen, "[\"127.0.0.1:1\"]", "what is said goes before: {service}");
    }
}

/// `section.key` and the value's text of every line of a printed configuration.
fn toml(text: &str) -> std::collections::HashMap<String, String> {
    let mut section = String::new();
    let mut values = std::collections::HashMap::new();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(" = ") {
            values.insert(format!("{section}.{key}"), value.to_owned());
        } else if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        }
    }
    values
}

#[test]
fn a_single_service_says_that_the_embedded_log_serves_one_process() {
    let said = refused(&mut drover(&["registry"]), 1);
    assert!(one_line(&said).contains("bus.kind = embedded serves one process: use `drover up`"), "{said}");
    assert!(run(&["registry", "--check-config"]).status.success());
}

#[test]
fn a_single_service_never_makes_what_it_shares_with_others() {
    let data = tempfile::tempdir().expect("a directory");
    let at = ["--set", "registry.listen=[\"127.0.0.1:0\"]", "--set", "admin.listen=[\"127.0.0.1:0\"]"];
    let registry = |data: &Path| {
        let mut command = drover(&["registry", "--set", "bus.kind=kafka", "--set", "log.level=error", "--data"]);
        command.arg(data).args(at).args(["--set", "bus.kafka.brokers=127.0.0.1:9"]);
        one_line(&refused(&mut command, 1)).to_owned()
    };
    let said = registry(data.path());
    assert!(said.contains("admin.token") && said.contains("`drover init` makes it"), "{said}");
    std::fs::write(data.path().join("admin.token"), "s3cret\n").expect("written");
    let said = registry(data.path());
    assert!(said.contains("pki/ca.key does not exist; `drover init` makes it"), "{said}");
    assert!(!data.path().join("pki").exists(), "nothing was made");
    let said = refused(&mut drover(&["gateway", "--check-config"]), 1);
    assert!(one_line(&said).contains("network.registry: gateway needs the registry"), "{said}");
}

#[test]
fn several_ingress_processes_have_to_agree_on_whose_a_session_is() {
    let checked = |settings: &[&str]| {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let registry = ["--set", "network.registry=http://127.0.0.1:7071"];
        drover(&["ingress", "--check-config"].into_iter().chain(registry).chain(settings).collect::<Vec<_>>())
    };
    let said = refused(&mut checked(&[]), 1);
    assert!(one_line(&said).contains("network.ingress: says where all ingress nodes are"), "{said}");
    let one = r#"network.ingress=["http://127.0.0.1:7075"]"#;
    let two = r#"network.ingress=["http://127.0.0.1:7075", "http://127.0.0.1:7175"]"#;
    let said = refused(&mut checked(&[two]), 1);
    let expected =
        "ingress.owners.kind: embedded is for one ingress node, network.ingress names 2: set \"cassandra\", or";
    assert!(one_line(&said).contains(expected), "{said}");
    for settings in [vec![one], vec![two, "ingress.owners.kind=cassandra"], vec![two, "ingress.owners.kind=clock"]] {
        assert!(checked(&settings).output().expect("runs").status.success(), "{settings:?}");
    }
}

#[test]
fn all_ports_in_use_are_listed_at_once_with_what_moves_them() {
    let offset = free_offset();
    let _held = [7071, 9092].map(|port| TcpListener::bind(("127.0.0.1", port + offset)).expect("was free"));
    let data = tempfile::tempdir().expect("a directory");
    let mut command = drover(&["up", "--port-offset", &offset.to_string(), "--data"]);
    let said = refused(command.arg(data.path().join("data")), 1);
    for (port, key) in [(7071, "registry.listen"), (9092, "kafka.listen")] {
        let line = said.lines().find(|line| line.contains(&format!("127.0.0.1:{}", port + offset)));
        assert!(line.is_some_and(|line| line.contains("in use") && line.contains(key)), "{said}");
    }
    assert!(said.contains("2 addresses cannot be bound; --port-offset N moves all ports"), "{said}");
    assert!(!data.path().join("data").exists(), "nothing was made");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let data = file.path().join("data");
    let said = refused_on(&data);
    let expected =
        format!("drover: data directory {} is a file, or below one; choose another with --data DIR", data.display());
    assert_eq!(said, expected);
}

#[test]
fn a_directory_without_permission_is_named() {
    let parent = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o555)).expect("ours");
    let data = parent.path().join("data");
    let Some(said) = refused_by_permission(&data) else { return };
    let expected = format!(
        "drover: data directory {} cannot be made; give permission, or choose another with --data DIR: Permission denied (os error 13)",
        data.display()
    );
    assert_eq!(one_line(&said), expected);
    assert!(!data.exists());

    // One that is there, and is somebody else's.
    let Some(said) = refused_by_permission(parent.path()) else { return };
    let (line, path) = (one_line(&said), parent.path().display().to_string());
    assert!(line.contains(&path) && line.to_lowercase().contains("permission denied"), "{said}");
    assert!(line.contains("give permission, or choose another directory with --data DIR"), "{said}");
    assert_eq!(std::fs::read_dir(parent.path()).expect("readable").count(), 0, "nothing was made");
}

/// What `up` says on a directory that nobody may write to; `None`, after one line that says why, where root cannot give its
/// rights up.
fn refused_by_permission(data: &Path) -> Option<String> {
    let offset = free_offset().to_string();
    let arguments = ["up", "--port-offset", offset.as_str(), "--set", "log.level=error", "--data"];
    match drover_by_permission(&arguments).arg(data).output() {
        Ok(output) if !output.stderr.starts_with(b"setpriv:") => {
            let said = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{said}");
            Some(said)
        }
        told => {
            println!("NOT RUN: a directory without permission: root gives no right up: {told:?}");
            None
        }
    }
}

#[test]
fn a_second_start_on_the_same_directory_is_refused_and_harms_nobody() {
    let data = tempfile::tempdir().expect("a directory");
    let first = Up::on(data.path());
    let said = refused_on(data.path());
    assert!(said.contains(&data.path().display().to_string()) && said.contains("in use by another process"), "{said}");
    assert_eq!(first.admin("/readyz").0, 200);
    assert!(first.stop().success());
}

#[test]
fn data_of_another_version_or_damaged_data_is_refused_and_left_alone() {
    let data = tempfile::tempdir().expect("a directory");
    assert!(Up::on(data.path()).stop().success());
    let format = data.path().join("bus/FORMAT");
    let kept = std::fs::read_to_string(&format).expect("there");
    for (found, shown) in [("0\n", "format 0"), ("999\n", "format 999")] {
        std::fs::write(&format, found).expect("written");
        let said = refused_on(data.path());
        assert!(said.contains(shown) && said.contains("use the version of drover that wrote it"), "{said}");
    }
    std::fs::write(&format, kept).expect("written");
    let ca = data.path().join("pki/ca.pem");
    std::fs::write(&ca, "no certificate").expect("written");
    let said = refused_on(data.path());
    assert!(said.contains(&ca.display().to_string()) && said.contains("malformed"), "{said}");
    assert!(said.contains("restore it from a backup"), "{said}");
}

#[test]
fn a_full_disk_at_the_start_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let offset = free_offset().to_string();
    let script = "mount -t tmpfs -o size=16k tmpfs \"$1\" || exit 77; exec \"$2\" up --port-offset \"$3\" --data \"$1/data\" --set log.level=error";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    let command = command.arg(directory.path()).args([env!("CARGO_BIN_EXE_drover"), &offset]);
    let Ok(output) = command.output() else {
        return println!("NOT RUN: a full disk at the start: there is no `unshare` here");
    };
    let said = String::from_utf8(output.stderr).expect("text");
    if output.status.code() == Some(77) || said.starts_with("unshare:") {
        return println!("NOT RUN: a full disk at the start: mounting is not allowed here: {}", said.trim());
    }
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(one_line(&said).to_lowercase().contains("no space left on device"), "{said}");
    assert!(said.contains(&directory.path().display().to_string()), "{said}");
}

#[test]
fn a_log_of_one_process_knows_whether_somebody_serves_shadows() {
    let shown = |arguments: &[&str]| {
        let output = run(&[&["up", "--print-config"], arguments].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().find_map(|line| line.strip_prefix("shadows = ").map(str::to_owned)).expect("it is shown")
    };
    assert_eq!(shown(&[]), "true");
    assert_eq!(
        (shown(&["--disable", "shadow"]), shown(&["--only", "ingress,registry"])),
        ("false".into(), "false".into())
    );
    let shared = ["--disable", "shadow", "--set", "bus.kind=kafka", "--set", "bus.kafka.brokers=127.0.0.1:9"];
    assert_eq!(shown(&shared), "true", "another process may serve them");
    let said = ["--disable", "shadow", "--set", "ingress.shadows=true"];
    assert_eq!(shown(&said), "true", "what is configured counts");
}
