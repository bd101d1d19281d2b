//! Secrets of tenants: files `DIR/TENANT/NAME/ENTRY`, as a mounted Kubernetes Secret has them. Read when they are needed,
//! so that a changed one counts at once; never logged.

use std::path::PathBuf;

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
        let path = self.path(tenant, name)?.join(entry);
        let missing = |reason: &dyn std::fmt::Display| format!("secret {name} of {tenant} has no {entry}: {reason}");
        let size = tokio::fs::metadata(&path).await.map_err(|error| missing(&error.kind()))?.len();
        if size > ENTRY_BYTES_MAX {
            return Err(format!("{entry} of secret {name} has {size} bytes, limit is {ENTRY_BYTES_MAX}"));
        }
        let text = tokio::fs::read_to_string(&path).await.map_err(|error| missing(&error.kind()))?;
        Ok(text.trim().to_owned())
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
        for (tenant, name) in [("away", "hooks"), ("home", "other"), ("home", ".."), ("..", "hooks"), ("home", "a/b")] {
            assert!(secrets.entry(tenant, name, "hmac").await.is_err(), "{tenant}/{name}");
        }
    }
}
