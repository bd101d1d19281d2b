//! `apply -f`, `get`, `list` and `delete`, which authorities, functions, groups, policies, rules and types have in common.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use drover_gateway::declared::Kind;
use serde_json::{Value, json};

use super::connection::Connection;
use super::manifest;
use super::output::{Column, plain};

/// What can be done with declared objects.
#[derive(Debug, Subcommand)]
pub enum ObjectCommand {
    /// Creates or replaces what files declare
    #[command(alias = "put")]
    Apply {
        /// YAML or JSON, several documents in one; `-` is standard input
        #[arg(short, long = "file", required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Shows one
    Get { name: String },
    /// Shows all
    List,
    /// Deletes one
    Delete { name: String },
}

impl ObjectCommand {
    /// Does it for objects with the spec `S`, shown in `columns`.
    pub fn run<S: Kind>(self, to: &Connection, columns: &[Column], out: &mut dyn Write) -> anyhow::Result<()> {
        match self {
            Self::Apply { files } => apply::<S>(&files, to, out),
            Self::Get { name } => to.output.list(out, &to.open()?.get(&[S::COLLECTION, &name])?, columns),
            Self::List => to.output.list(out, &to.open()?.list(&[S::COLLECTION], true)?, columns),
            Self::Delete { name } => {
                let deleted = to.open()?.delete(&[S::COLLECTION, &name])?;
                let told = json!({"name": name, "deleted": true});
                to.output.gone(out, &format!("{} {name} is deleted", noun::<S>()), told, &deleted)
            }
        }
    }
}

/// Reads everything before anything is sent: a mistake in the last file changes nothing.
fn apply<S: Kind>(files: &[PathBuf], to: &Connection, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut objects = Vec::new();
    for file in files {
        objects.extend(manifest::read::<S>(file)?.into_iter().map(|object| (file, object)));
    }
    let client = to.open()?;
    for (file, object) in objects {
        // The namespace of a document is its tenant, unless `-n` names one: then they have to agree.
        let client = match object.metadata.namespace.as_deref().filter(|_| to.tenant.is_none()) {
            Some(namespace) => &client.about(namespace)?,
            None => &client,
        };
        let name = object.metadata.name.clone();
        let kept = client
            .put(&[S::COLLECTION, &name], &serde_json::to_value(&object)?)
            .with_context(|| format!("{}: {} {name}", file.display(), noun::<S>()))?;
        let (done, refused) = outcome(&kept);
        to.output.object(out, &kept, |out| writeln!(out, "{} {name} is {done}", noun::<S>()))?;
        anyhow::ensure!(!refused, "{}: {} {name} is not in force", file.display(), noun::<S>());
    }
    Ok(())
}

/// What became of an applied object, by its conditions; whether it was refused by who is to work by it.
fn outcome(kept: &Value) -> (String, bool) {
    let conditions = kept.pointer("/status/conditions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |condition: &Value, name: &str| plain(condition[name].as_str().unwrap_or_default());
    match conditions.iter().find(|condition| condition["status"] != "True") {
        None => ("applied".to_owned(), false),
        Some(condition) => {
            let why = format!("kept; {}: {}", text(condition, "reason"), text(condition, "message"));
            (why, condition["status"] == "False")
        }
    }
}

fn noun<S: Kind>() -> String {
    S::KIND.to_lowercase()
}
