//! Secrets of tenants: files `DIR/TENANT/NAME/ENTRY`, as a mounted Kubernetes Secret has them. Read when they are needed,
//! so that a changed one counts at once; never logged.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Most bytes of one entry.
const ENTRY_BYTES_MAX: u64 = 16 * 1024;
/// Most entries of one secret that are headers.
const ENTRIES_MAX: usize = 32;

/// The directory.
#[derive(Clone, Debug)]
pub struct Secrets(PathBuf);

impl Secrets {
    /// Secrets in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// One entry of a secret, without the blank space around it.
    pub async fn entry(&self, tenant: &str, name: &str, entry: &str) -> Result<String, String> {
        let found = self.find(tenant, name, entry).await?;
        found.ok_or_else(|| format!("secret {name} of {tenant} has no {entry}"))
    }

    /// As [`Secrets::entry`]; `None` if the secret has no such entry.
    pub async fn find(&self, tenant: &str, name: &str, entry: &str) -> Result<Option<String>, String> {
        let path = self.path(tenant, name)?.join(entry);
        read(&path).await.map_err(|reason| format!("{entry} of secret {name} of {tenant} {reason}"))
    }

    /// All entries of a secret but those in `except`, by name.
    pub async fn entries(&self, tenant: &str, name: &str, except: &str) -> Result<Vec<(String, String)>, String> {
        let missing = |error: std::io::Error| format!("secret {name} of {tenant} cannot be read: {}", error.kind());
        let mut files = tokio::fs::read_dir(self.path(tenant, name)?).await.map_err(missing)?;
        let mut entries = Vec::new();
        while let Some(file) = files.next_entry().await.map_err(missing)? {
            let Ok(entry) = file.file_name().into_string() else { continue };
            // Kubernetes keeps its own links there, with two dots in front.
            if entry.starts_with('.') || entry == except {
                continue;
            }
            if entries.len() == ENTRIES_MAX {
                return Err(format!("secret {name} of {tenant} has more than {ENTRIES_MAX} entries"));
            }
            let value = self.entry(tenant, name, &entry).await?;
            entries.push((entry, value));
        }
        Ok(entries)
    }

    fn path(&self, tenant: &str, name: &str) -> Result<PathBuf, String> {
        if [tenant, name].iter().any(|part| part.is_empty() || part.starts_with('.') || part.contains(['/', '\\'])) {
            return Err(format!("{tenant}/{name} is no secret's name"));
        }
        Ok(self.0.join(tenant).join(name))
    }
}

/// The text of a file without the blank space around it; `None` if there is no such file. The error is what is wrong with
/// it, without its name.
pub async fn read(path: &Path) -> Result<Option<String>, String> {
    let unreadable = |kind: ErrorKind| format!("cannot be read: {kind}");
    let size = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.kind())),
    };
    if size > ENTRY_BYTES_MAX {
        return Err(format!("has {size} bytes, limit is {ENTRY_BYTES_MAX}"));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(|error| unreadable(error.kind()))?;
    Ok(Some(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_is_a_directory_of_its_tenant() {
        let dir = tempfile::tempdir().expect("a directory");
        let secret = dir.path().join("home/hooks");
        std::fs::create_dir_all(secret.join("..data")).expect("made");
        std::fs::write(secret.join("authorization"), "Bearer x\n").expect("written");
        std::fs::write(secret.join("hmac"), "key").expect("written");
        let secrets = Secrets::new(dir.path().to_owned());
        let headers = secrets.entries("home", "hooks", "hmac").await.expect("there");
        assert_eq!(headers, [("authorization".to_owned(), "Bearer x".to_owned())]);
        assert_eq!(secrets.entry("home", "hooks", "hmac").await, Ok("key".to_owned()));
        assert_eq!(secrets.find("home", "hooks", "url").await, Ok(None));
        std::fs::write(secret.join("long"), "x".repeat(ENTRY_BYTES_MAX as usize + 1)).expect("written");
        let refused = secrets.entry("home", "hooks", "long").await.expect_err("too long");
        assert_eq!(refused, "long of secret hooks of home has 16385 bytes, limit is 16384");
        for (tenant, name) in [("away", "hooks"), ("home", "other"), ("home", ".."), ("..", "hooks"), ("home", "a/b")] {
            assert!(secrets.entry(tenant, name, "hmac").await.is_err(), "{tenant}/{name}");
        }
    }
}
