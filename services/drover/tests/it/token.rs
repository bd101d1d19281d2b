//! API tokens by the command line, and the command line by API tokens.

use std::process::Command;

use crate::platform::Platform;
use crate::process::{drover, refused};

/// A command with nothing but a token.
fn by(platform: &Platform, token: &str, arguments: &[&str]) -> Command {
    let mut command = drover(arguments);
    command.env("DROVER_SERVER", format!("http://127.0.0.1:{}", 8080 + platform.up.offset)).env("DROVER_TOKEN", token);
    command
}

fn says(mut command: Command) -> String {
    let output = command.output().expect("the executable runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The one line of a command that fails.
fn line(mut command: Command) -> String {
    let said = refused(&mut command, 1);
    assert_eq!(said.lines().count(), 1, "{said}");
    said.trim_end().to_owned()
}

#[test]
fn a_token_is_made_used_listed_and_deleted() {
    let platform = Platform::start();
    let made = says(platform.command(&["token", "create", "ops", "--role", "admin", "-n", "home", "--expires", "90d"]));
    let admin = made.trim();
    assert!(admin.starts_with("drt_home.ops.") && made.lines().count() == 1, "{made}");

    let told = says(by(&platform, admin, &["device", "create", "t-1"]));
    assert!(told.contains("home/t-1"), "its tenant is that of the token: {told}");
    let made = says(by(&platform, admin, &["token", "create", "look", "--role", "viewer", "-o", "yaml"]));
    let made: serde_json::Value = serde_yaml_ng::from_str(&made).expect("YAML");
    assert_eq!((&made["createdBy"], &made["role"]), (&"token ops".into(), &"viewer".into()));
    let viewer = made["token"].as_str().expect("a token");

    let listed = platform.json(&["token", "list", "-n", "home"]);
    assert_eq!(listed["items"][0]["name"], "look");
    assert_eq!(listed["items"][1]["createdBy"], "administrator");
    assert!(listed["items"][1]["expirationTimestamp"].is_string(), "{listed}");
    assert!(!listed.to_string().contains("drt_"), "a token is shown once: {listed}");
    let table = says(by(&platform, admin, &["token", "list"]));
    assert!(table.starts_with("NAME  ROLE    CREATED"), "{table}");

    assert!(says(by(&platform, viewer, &["device", "list"])).contains("t-1"));
    assert_eq!(says(by(&platform, admin, &["token", "delete", "look"])), "token look is deleted\n");
    let gone = line(by(&platform, viewer, &["device", "list"]));
    assert!(gone.contains("refuses the token: the API token is not one in force"), "{gone}");
    assert!(line(by(&platform, admin, &["token", "delete", "look"])).ends_with("api_token/home/look does not exist"));
}

#[test]
fn a_token_that_may_not_is_one_clear_line() {
    let platform = Platform::start();
    let create = |role: &str| says(platform.command(&["token", "create", role, "--role", role, "-n", "home"]));
    let (viewer, editor) = (create("viewer"), create("editor"));
    let (viewer, editor) = (viewer.trim(), editor.trim());
    let weak = line(by(&platform, viewer, &["device", "create", "t-1"]));
    assert_eq!(weak, "drover: the role viewer may read and change nothing");
    assert!(says(by(&platform, editor, &["device", "create", "t-1"])).contains("home/t-1"));
    let weak = line(by(&platform, editor, &["token", "create", "mine", "--role", "admin"]));
    assert_eq!(
        weak,
        "drover: API tokens, changes of certificate authorities, and the audit trail are for the role admin"
    );
    for tenant in ["away", "default"] {
        let other = line(by(&platform, editor, &["device", "list", "-n", tenant]));
        let expected = "drover: the token is one of tenant home: its paths are those under /api/v1/tenants/home";
        assert_eq!(other, expected, "of {tenant} nothing is said");
    }
    let brief =
        says(platform.command(&["token", "create", "brief", "--role", "viewer", "-n", "home", "--expires", "1s"]));
    let ended = loop {
        let output = by(&platform, brief.trim(), &["device", "list"]).output().expect("the executable runs");
        if !output.status.success() {
            break String::from_utf8(output.stderr).expect("text");
        }
    };
    assert!(ended.contains("the API token brief of tenant home has expired"), "{ended}");

    let taken = platform.refuses(&["token", "create", "viewer", "--role", "viewer", "-n", "home"]);
    assert_eq!(taken, "drover: api_token/home/viewer exists already");
    let name = platform.refuses(&["token", "create", "A b", "--role", "viewer"]);
    assert!(name.starts_with("drover: name: a name is a-z"), "{name}");
    refused(&mut platform.command(&["token", "create", "x"]), 2);
    refused(&mut platform.command(&["token", "create", "x", "--role", "root"]), 2);
    refused(&mut platform.command(&["token", "create", "x", "--role", "viewer", "--expires", "90"]), 2);
}
