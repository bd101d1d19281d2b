//! `drover credential`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::connection::Connection;
use super::device::warn_unconfirmed;
use super::output::Column;

const COLUMNS: [Column; 4] =
    [("ID", "/id"), ("KIND", "/kind"), ("CREATED", "/creationTimestamp"), ("EXPIRES", "/expirationTimestamp")];

/// The files of a certificate: name, field of the answer, mode.
const FILES: [(&str, &str, u32); 3] = [
    ("device.cert.pem", "certificatePem", 0o644),
    ("device.private.key", "privateKeyPem", 0o600),
    ("ca.pem", "caPem", 0o644),
];

/// Credentials of devices.
#[derive(Debug, Args)]
pub struct Credential {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// Issues a credential; its secret is shown this once
    Issue(Issue),
    /// Shows the credentials of a device, without their secrets
    List { device: String },
    /// Revokes a credential; connections that used it are closed
    Revoke { device: String, id: String },
}

#[derive(Debug, Args)]
struct Issue {
    device: String,
    /// A token, printed once
    #[arg(long, required_unless_present_any = ["certificate", "psk"])]
    token: bool,
    /// A client certificate with its key, written to files
    #[arg(long, requires = "out", conflicts_with = "token")]
    certificate: bool,
    /// A pre-shared key for CoAP over DTLS, printed once: its identity and the key, of which each character is a byte
    #[arg(long, conflicts_with_all = ["token", "certificate"])]
    psk: bool,
    /// Directory for device.cert.pem, device.private.key and ca.pem
    #[arg(long, value_name = "DIR", requires = "certificate")]
    out: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long, requires = "certificate")]
    force: bool,
    /// Seconds until it ends; without: a token or a key never, a certificate in a year
    #[arg(long, value_name = "SECONDS")]
    duration_s: Option<u64>,
}

impl Credential {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let to = &self.connection;
        match self.command {
            CredentialCommand::Issue(issue) => issue.run(to, out),
            CredentialCommand::List { device } => {
                to.output.list(out, &to.open()?.get(&["devices", &device, "credentials"])?, &COLUMNS)
            }
            CredentialCommand::Revoke { device, id } => {
                let revoked = to.open()?.delete(&["devices", &device, "credentials", &id])?;
                warn_unconfirmed(&revoked);
                let told = json!({"device": device, "id": id, "revoked": true});
                to.output.gone(out, &format!("credential {id} of {device} is revoked"), told, &revoked)
            }
        }
    }
}

impl Issue {
    fn run(&self, to: &Connection, out: &mut dyn Write) -> anyhow::Result<()> {
        if let Some(dir) = &self.out {
            prepare(dir, self.force)?;
        }
        let kind = match (self.certificate, self.psk) {
            (true, _) => "certificate",
            (false, true) => "preSharedKey",
            (false, false) => "token",
        };
        let mut order = json!({"kind": kind});
        if let Some(duration_s) = self.duration_s {
            order["durationS"] = duration_s.into();
        }
        let issued = to.open()?.post(&["devices", &self.device, "credentials"], &order)?;
        match &self.out {
            Some(dir) => {
                let files = save(dir, &issued)?;
                to.output
                    .object(out, &json!({"files": files}), |out| files.iter().try_for_each(|f| writeln!(out, "{f}")))
            }
            None if self.psk => {
                let field = |name: &str| issued[name].as_str().with_context(|| format!("the answer has no {name}"));
                let (identity, key) = (field("identity")?, field("preSharedKey")?);
                to.output.object(out, &issued, |out| writeln!(out, "identity  {identity}\nkey       {key}"))
            }
            None => {
                let token = issued["token"].as_str().context("the answer has no token")?.to_owned();
                to.output.object(out, &issued, |out| writeln!(out, "{token}"))
            }
        }
    }
}

/// Makes the directory, and refuses files that are there: before a certificate is issued that could not be kept.
fn prepare(dir: &Path, force: bool) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    for (name, _, _) in FILES {
        let file = dir.join(name);
        anyhow::ensure!(force || !file.exists(), "{} exists; --force overwrites it", file.display());
    }
    Ok(())
}

/// Writes the files; their paths.
fn save(dir: &Path, issued: &Value) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for (name, field, mode) in FILES {
        let file = dir.join(name);
        let text = issued[field].as_str().with_context(|| format!("the answer has no {field}"))?;
        write(&file, text, mode).with_context(|| file.display().to_string())?;
        files.push(file.display().to_string());
    }
    Ok(files)
}

/// A former file goes first: its mode would stay otherwise, and a key must never be readable by others.
fn write(file: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_readable_by_its_owner_only_and_nothing_is_overwritten_unasked() {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = dir.path().join("keys");
        prepare(&keys, false).expect("an empty place");
        let issued = json!({"certificatePem": "C", "privateKeyPem": "K", "caPem": "A"});
        save(&keys, &issued).expect("saves");
        let key = keys.join("device.private.key");
        assert_eq!(std::fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_to_string(keys.join("ca.pem")).expect("there"), "A");

        let refused = prepare(&keys, false).expect_err("refused").to_string();
        assert!(refused.ends_with("device.cert.pem exists; --force overwrites it"), "{refused}");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("changed");
        prepare(&keys, true).expect("forced");
        save(&keys, &issued).expect("saves again");
        assert_eq!(std::fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);
    }
}
