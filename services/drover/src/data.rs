//! The data directory: who may read it, and the files in it that belong to no service.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;
use drover_host::config::SecurityConfig;
use drover_host::{AdminToken, SystemRandom};
use drover_types::{Random, hex};

/// Random bytes of the administrator's token.
const TOKEN_BYTES: usize = 32;

/// Where the administrator's token is.
pub fn token_path(data: &Path) -> PathBuf {
    data.join("admin.token")
}

/// Where the platform's certificates are.
pub fn pki_path(data: &Path) -> PathBuf {
    data.join("pki")
}

/// Where the certificates of the network between processes are.
pub fn network_pki_path(pki: &Path) -> PathBuf {
    pki.join("network")
}

/// Where the master keys of the registry are.
pub fn master_keys_path(data: &Path) -> PathBuf {
    data.join("master-keys")
}

/// Where the log is.
pub fn bus_path(data: &Path) -> PathBuf {
    data.join("bus")
}

/// Makes `directory`, for its owner only, if it is missing.
pub fn create(directory: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
        let (path, another) = (directory.display(), "choose another with --data DIR");
        match error.kind() {
            ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                anyhow::anyhow!("data directory {path} is a file, or below one; {another}")
            }
            _ => anyhow::anyhow!("data directory {path} cannot be made; give permission, or {another}: {error}"),
        }
    })
}

/// The administrator's token of a data directory; made at the first start, readable by its owner only.
pub fn made_admin_token(data: &Path) -> anyhow::Result<AdminToken> {
    let path = token_path(data);
    let failed = || format!("admin token {}", path.display());
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let mut bytes = [0; TOKEN_BYTES];
            SystemRandom.fill(&mut bytes);
            writeln!(file, "{}", hex(&bytes)).and_then(|()| file.sync_all()).with_context(failed)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(failed),
    }
    read_admin_token(&path)
}

/// The file that people find the administrator's token in; `None`: the configuration has the token itself.
pub fn told_token_path(data: &Path, security: &SecurityConfig) -> Option<PathBuf> {
    match &security.admin_token {
        Some(_) => None,
        None => Some(security.admin_token_file.clone().unwrap_or_else(|| token_path(data))),
    }
}

/// The token that this process shares with others: as configured, else of the data directory. It is not made here: two
/// processes that each made one would not know each other.
pub fn shared_admin_token(data: &Path, security: &SecurityConfig) -> anyhow::Result<AdminToken> {
    if let Some(token) = &security.admin_token {
        anyhow::ensure!(!token.expose().trim().is_empty(), "security.admin_token is empty");
        return Ok(AdminToken::new(token.expose()));
    }
    let path = security.admin_token_file.clone().unwrap_or_else(|| token_path(data));
    read_admin_token(&path).context("`drover init` makes it; security.admin_token_file says where it is")
}

fn read_admin_token(path: &Path) -> anyhow::Result<AdminToken> {
    let text = std::fs::read_to_string(path).with_context(|| format!("admin token {}", path.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "admin token {} is empty; remove it and start again", path.display());
    Ok(AdminToken::new(&text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_is_its_owners_only() {
        let data = tempfile::tempdir().expect("a directory");
        let token = made_admin_token(data.path()).expect("made");
        let text = std::fs::read_to_string(token_path(data.path())).expect("there");
        assert_eq!(text.trim().len(), 2 * TOKEN_BYTES);
        assert!(token.matches(text.trim()));
        assert!(made_admin_token(data.path()).expect("kept").matches(text.trim()));
        let mode = std::fs::metadata(token_path(data.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(token_path(data.path()), "\n").expect("written");
        assert!(made_admin_token(data.path()).expect_err("refused").to_string().contains("is empty"));
    }

    #[test]
    fn a_shared_token_is_found_where_it_is_said_to_be_and_never_made() {
        let data = tempfile::tempdir().expect("a directory");
        let mut security = SecurityConfig::default();
        let told = format!("{:#}", shared_admin_token(data.path(), &security).expect_err("there is none"));
        assert!(told.contains("drover init") && !token_path(data.path()).exists(), "{told}");
        made_admin_token(data.path()).expect("made");
        shared_admin_token(data.path(), &security).expect("of the data directory");
        assert_eq!(told_token_path(data.path(), &security), Some(token_path(data.path())));
        security.admin_token_file = Some(data.path().join("other"));
        assert_eq!(told_token_path(data.path(), &security), Some(data.path().join("other")));
        std::fs::write(data.path().join("other"), "s3cret\n").expect("written");
        assert!(shared_admin_token(data.path(), &security).expect("of the file").matches("s3cret"));
    }

    #[test]
    fn a_new_directory_is_its_owners_only() {
        let parent = tempfile::tempdir().expect("a directory");
        let directory = parent.path().join("a/b");
        create(&directory).expect("made");
        create(&directory).expect("there already");
        assert_eq!(std::fs::metadata(&directory).expect("there").permissions().mode() & 0o777, 0o700);
    }
}
