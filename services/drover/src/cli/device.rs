//! `drover device`.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::Client;
use super::connection::Connection;
use super::output::{Column, Format};
use super::snippet::{Access, Language, access};

const COLUMNS: [Column; 4] =
    [("NAME", "/metadata/name"), ("TYPE", "/spec/type"), ("STATE", "/status/phase"), ("LAST-SEEN", "/status/lastSeen")];

/// Devices: make them, look at them, print programs for them.
#[derive(Debug, Args)]
pub struct Device {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: DeviceCommand,
}

#[derive(Debug, Subcommand)]
enum DeviceCommand {
    /// Makes a device and prints what it needs to connect; its token is shown this once
    Create(Create),
    /// Shows a device
    Get { name: String },
    /// Shows the first 100 devices, or all
    List(List),
    /// Deletes a device; its connections are closed
    Delete { name: String },
    /// Prints a program with the device's credentials in place; issues a new token for it
    Snippet {
        name: String,
        #[arg(long, value_enum)]
        lang: Language,
    },
}

/// Which devices are shown.
#[derive(Debug, Args)]
pub struct List {
    /// Show every device
    #[arg(long)]
    all: bool,
    /// Those with these labels: room=kitchen,floor!=2,env in (a,b),!old
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Those of this type
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<String>,
}

impl List {
    /// Shows those at `path`.
    pub fn run(self, client: &Client, path: &[&str], format: Format, out: &mut dyn Write) -> anyhow::Result<()> {
        let chosen = [("labelSelector", &self.selector), ("type", &self.device_type)];
        let query: Vec<(&str, &str)> =
            chosen.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        let devices = client.chosen(path, &query, self.all)?;
        format.list(out, &devices, &COLUMNS)?;
        if devices.get("nextPageToken").is_some() && format == Format::Table {
            eprintln!("there are more: --all shows every device");
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
struct Create {
    name: String,
    /// Its type
    #[arg(long = "type", value_name = "TYPE")]
    device_type: Option<String>,
    /// A label; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// An attribute; may be repeated
    #[arg(long = "attribute", value_name = "KEY=VALUE", value_parser = pair)]
    attributes: Vec<(String, String)>,
    /// A policy; may be repeated; without one: the built-in policy `default`
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<String>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

impl Create {
    /// The body of the request.
    fn object(&self) -> Value {
        let text = |pairs: &[(String, String)]| -> Map<String, Value> {
            pairs.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
        };
        let mut spec = json!({"attributes": text(&self.attributes)});
        if let Some(device_type) = &self.device_type {
            spec["type"] = device_type.as_str().into();
        }
        if !self.policies.is_empty() {
            spec["policies"] = self.policies.clone().into();
        }
        json!({"metadata": {"name": self.name, "labels": text(&self.labels)}, "spec": spec})
    }
}

impl Device {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = self.connection.open()?;
        let format = self.connection.output;
        match self.command {
            DeviceCommand::Create(create) => {
                let created = client.post(&["devices"], &create.object())?;
                let access = access(&created)?;
                format.object(out, &created, |out| connects(out, &access))
            }
            DeviceCommand::Get { name } => format.list(out, &client.get(&["devices", &name])?, &COLUMNS),
            DeviceCommand::List(list) => list.run(&client, &["devices"], format, out),
            DeviceCommand::Delete { name } => {
                let deleted = client.delete(&["devices", &name])?;
                warn_unconfirmed(&deleted);
                let told = json!({"name": name, "deleted": true});
                format.gone(out, &format!("device {name} is deleted"), told, &deleted)
            }
            DeviceCommand::Snippet { name, lang } => {
                let issued = client.post(&["devices", &name, "credentials"], &json!({"kind": "token"}))?;
                eprintln!("a new token was issued to {name} for this program; its other credentials stay valid");
                let program = lang.0.program(&access(&issued)?);
                let told = json!({"device": name, "credential": issued["credential"], "program": program});
                format.object(out, &told, |out| out.write_all(program.as_bytes()))
            }
        }
    }
}

/// What a person enters into a device.
fn connects(out: &mut dyn Write, access: &Access) -> io::Result<()> {
    writeln!(out, "device {} of tenant {} may connect now:", access.device, access.tenant)?;
    writeln!(out, "  MQTT       {} (over TLS: {})", access.endpoints.mqtt, access.endpoints.mqtts)?;
    let (http, token) = (&access.endpoints.http, &access.token);
    writeln!(out, "  HTTP       curl -X POST \"http://{http}/update?api_key={token}\" -d field1=21.5")?;
    writeln!(out, "  client id  {}", access.device)?;
    writeln!(out, "  user name  {}", access.user_name())?;
    writeln!(out, "  password   {token} (its token; not shown again)")?;
    writeln!(out, "a program for it: drover device snippet {} --lang python", access.device)
}

/// Says which nodes may still hold a connection of what was revoked.
pub fn warn_unconfirmed(answer: &Value) {
    let nodes = answer["unconfirmedNodes"].as_array().map_or(&[][..], Vec::as_slice);
    if !nodes.is_empty() {
        let nodes: Vec<&str> = nodes.iter().filter_map(Value::as_str).collect();
        eprintln!("drover: not confirmed by {}: connections may live there until it answers", nodes.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_the_declared_device() {
        let create = Create {
            name: "d".into(),
            device_type: Some("thermostat".into()),
            labels: vec![pair("room=kitchen").expect("a pair")],
            attributes: vec![pair("serial=A=17").expect("a pair")],
            policies: vec![],
        };
        let expected = json!({
            "metadata": {"name": "d", "labels": {"room": "kitchen"}},
            "spec": {"attributes": {"serial": "A=17"}, "type": "thermostat"},
        });
        assert_eq!(create.object(), expected);
        assert_eq!(pair("novalue").expect_err("refused"), "\"novalue\" is not KEY=VALUE");
        assert!(pair("=x").is_err());
    }
}
