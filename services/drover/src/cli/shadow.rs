//! `drover shadow`: with a further word a command of the client, without one the service of this name.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::output::{Column, plain, table};
use crate::services::ServiceArgs;

const FIELDS: [Column; 3] = [("FIELD", "/field"), ("DESIRED", "/desired"), ("REPORTED", "/reported")];
/// How the classic shadow, whose name is empty, is shown; no name has parentheses.
const CLASSIC: &str = "(classic)";
/// Longest file that is read, in bytes; the service's own limit is below.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Shadows of devices; without a further word: runs the shadow service as a process of its own.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Shadow {
    #[command(subcommand)]
    command: Option<ShadowCommand>,
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Debug, Subcommand)]
enum ShadowCommand {
    /// Shows a shadow: what is desired, what the device has reported
    Get {
        #[command(flatten)]
        at: At,
    },
    /// Changes a shadow; members that are null are removed
    #[command(disable_version_flag = true)]
    Update(Update),
    /// Deletes a shadow
    Delete {
        #[command(flatten)]
        at: At,
    },
    /// Shows the names of a device's shadows
    List {
        #[command(flatten)]
        connection: Connection,
        device: String,
    },
}

/// Which shadow.
#[derive(Debug, Args)]
struct At {
    #[command(flatten)]
    connection: Connection,
    device: String,
    /// A named shadow; without: the classic one
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Debug, Args)]
struct Update {
    #[command(flatten)]
    at: At,
    /// What the device shall be, a JSON object
    #[arg(long, value_name = "JSON", value_parser = object, required_unless_present_any = ["reported", "file"])]
    desired: Option<String>,
    /// What the device says it is, a JSON object
    #[arg(long, value_name = "JSON", value_parser = object)]
    reported: Option<String>,
    /// A whole request as a device sends it, `{"state": {…}}`; `-` is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["desired", "reported", "version"])]
    file: Option<PathBuf>,
    /// Only if this is the shadow's present version
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

/// The text, if it is a JSON object or null. It is sent as it stands: a number keeps all its digits.
fn object(text: &str) -> Result<String, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_) | Value::Null) => Ok(text.to_owned()),
        Ok(_) => Err("is not a JSON object".to_owned()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

impl Shadow {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Some(command) => super::printing(|out| command.run(out)),
            None => self.service.run("shadow"),
        }
    }
}

impl ShadowCommand {
    fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Self::Get { at } => {
                let document = at.connection.open()?.get(&at.path())?;
                at.connection.output.object(out, &document, |out| show(out, &document))
            }
            Self::Update(update) => update.run(out),
            Self::Delete { at } => {
                let deleted = at.connection.open()?.delete(&at.path())?;
                let what = at.title();
                at.connection.output.object(out, &deleted, |out| writeln!(out, "{what} is deleted"))
            }
            Self::List { connection, device } => {
                let names = connection.open()?.get(&["devices", &device, "shadows"])?;
                connection.output.object(out, &names, |out| {
                    let names = names["items"].as_array().map_or(&[][..], Vec::as_slice).iter();
                    let shown =
                        names.filter_map(Value::as_str).map(|name| if name.is_empty() { CLASSIC } else { name });
                    let rows: Vec<Value> = shown.map(|name| json!({"name": name})).collect();
                    out.write_all(table(&rows, &[("NAME", "/name")]).as_bytes())
                })
            }
        }
    }
}

impl At {
    fn path(&self) -> Vec<&str> {
        ["devices", &self.device, "shadow"].into_iter().chain(self.name.as_deref()).collect()
    }

    fn title(&self) -> String {
        let name = self.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
        format!("shadow{name} of {}", self.device)
    }
}

impl Update {
    fn run(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let request = match &self.file {
            Some(file) => read(file).with_context(|| file.display().to_string())?,
            None => self.request(),
        };
        let to = &self.at.connection;
        let accepted = to.open()?.patch(&self.at.path(), request)?;
        let what = self.at.title();
        to.output.object(out, &accepted, |out| writeln!(out, "{what} is at version {}", accepted["version"]))
    }

    /// What a device would send.
    fn request(&self) -> String {
        let sections = [("desired", &self.desired), ("reported", &self.reported)];
        let sections: Vec<String> =
            sections.iter().filter_map(|(name, json)| Some(format!(r#""{name}":{}"#, (*json).as_ref()?))).collect();
        let version = self.version.map_or(String::new(), |version| format!(r#","version":{version}"#));
        format!(r#"{{"state":{{{}}}{version}}}"#, sections.join(","))
    }
}

/// A file of JSON.
fn read(file: &Path) -> anyhow::Result<String> {
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(std::fs::File::open(file)?) };
    let mut text = String::new();
    let bytes = source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    anyhow::ensure!(bytes as u64 <= FILE_BYTES_MAX, "is longer than {FILE_BYTES_MAX} bytes");
    serde_json::from_str::<serde::de::IgnoredAny>(&text).context("is not JSON")?;
    Ok(text)
}

/// Each field with what is desired and what is reported, and the version.
fn show(out: &mut dyn Write, document: &Value) -> io::Result<()> {
    let mut fields: Vec<(String, Value)> = Vec::new();
    for section in ["desired", "reported"] {
        leaves(&document["state"][section], "", &mut |field, value| {
            let place = fields.iter().position(|(known, _)| *known == field).unwrap_or_else(|| {
                fields.push((field.to_owned(), json!({"field": field})));
                fields.len() - 1
            });
            fields[place].1[section] = value.to_string().into();
        });
    }
    let rows: Vec<Value> = fields.into_iter().map(|(_, row)| row).collect();
    out.write_all(table(&rows, &FIELDS).as_bytes())?;
    writeln!(out, "version {}", document["version"])
}

/// Every value that is no object (or an empty one), with the names that lead to it.
fn leaves(value: &Value, path: &str, see: &mut impl FnMut(&str, &Value)) {
    match value.as_object().filter(|members| !members.is_empty() || path.is_empty()) {
        Some(members) => members.iter().for_each(|(name, value)| {
            let name = plain(name);
            leaves(value, &if path.is_empty() { name } else { format!("{path}.{name}") }, see);
        }),
        None if path.is_empty() => {} // the section is not there
        None => see(path, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn update(arguments: &[&str]) -> Result<Update, clap::Error> {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            update: Update,
        }
        // As on the command line itself, where it is set on the subcommand.
        let line = ["drover", "lamp"].iter().chain(arguments);
        Line::try_parse_from(line).map(|line| line.update)
    }

    #[test]
    fn numbers_are_sent_as_they_were_written() {
        let request = |arguments: &[&str]| update(arguments).expect("right").request();
        assert_eq!(request(&["--desired", r#"{"t": 21.50}"#]), r#"{"state":{"desired":{"t": 21.50}}}"#);
        assert_eq!(
            request(&["--desired", "null", "--reported", "{}", "--version", "7"]),
            r#"{"state":{"desired":null,"reported":{}},"version":7}"#
        );
    }

    #[test]
    fn what_is_no_object_or_two_things_at_once_is_wrong_usage() {
        for wrong in [
            &[][..],
            &["--version", "1"],
            &["--desired", "5"],
            &["--desired", "{"],
            &["-f", "x", "--desired", "{}"],
            &["-f", "x", "--version", "1"],
        ] {
            assert!(update(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_document_is_shown_field_by_field() {
        let state =
            json!({"desired": {"fan": "on", "at": {"x": 1, "y": {}}}, "reported": {"fan": "off", "list": [1, 2]}});
        let mut out = Vec::new();
        show(&mut out, &json!({"state": state, "version": 4})).expect("prints");
        let expected = "FIELD  DESIRED  REPORTED\nfan    \"on\"     \"off\"\nat.x   1        -\nat.y   {}       -\n\
            list   -        [1,2]\nversion 4\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
