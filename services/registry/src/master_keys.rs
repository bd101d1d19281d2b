//! Master keys: under which secrets are sealed that must be known again. Files of one directory, `current` and, while keys
//! are changed, `previous`: sealed is with the one, opened with both.
//!
//! A sealed secret names its master key by a digest of the key, and is bound to its device: put into another device's row
//! it opens no more.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use drover_types::{ApiError, DeviceKey, ErrorCode, Random, hex};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

use crate::object::{NONCE_BYTES, Sealed};
use crate::pki::{self, PkiError};
use crate::ports::Vault;

/// The file of the key that secrets are sealed with.
pub const CURRENT: &str = "current";
/// The file of the key before it, whose secrets still open.
pub const PREVIOUS: &str = "previous";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of the digest that names a key.
const NAME_BYTES: usize = 8;

/// The keys could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("master key {}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Write(#[from] PkiError),
    #[error("master key {} is no base64", path.display())]
    NotBase64 { path: PathBuf },
    #[error("master key {} has {bytes} bytes, a key has {KEY_BYTES}, written as base64", path.display())]
    Length { path: PathBuf, bytes: usize },
}

/// Makes the current key in `dir`, readable by its owner only, unless there is one.
pub fn ensure(dir: &Path, random: &dyn Random) -> Result<(), MasterKeyError> {
    let path = dir.join(CURRENT);
    if MasterKey::read(&path)?.is_some() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(|source| MasterKeyError::File { path: dir.to_owned(), source })?;
    let mut secret = [0; KEY_BYTES];
    random.fill(&mut secret);
    pki::write_file(&path, &STANDARD.encode(secret), 0o600)?;
    tracing::info!(path = %path.display(), "master key made");
    Ok(())
}

/// The keys of one directory.
pub struct MasterKeys {
    current: Option<MasterKey>,
    previous: Option<MasterKey>,
}

impl MasterKeys {
    /// Those that are in `dir`; none if there is no such directory.
    pub fn read(dir: Option<&Path>) -> Result<Self, MasterKeyError> {
        let key = |name| dir.map_or(Ok(None), |dir| MasterKey::read(&dir.join(name)));
        Ok(Self { current: key(CURRENT)?, previous: key(PREVIOUS)? })
    }
}

struct MasterKey {
    name: String,
    sealing: LessSafeKey,
}

impl MasterKey {
    /// The key in a file; `None`: there is none.
    fn read(path: &Path) -> Result<Option<Self>, MasterKeyError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(MasterKeyError::File { path: path.to_owned(), source }),
        };
        let secret = STANDARD.decode(text.trim());
        let secret = secret.map_err(|_| MasterKeyError::NotBase64 { path: path.to_owned() })?;
        let wrong = |bytes| MasterKeyError::Length { path: path.to_owned(), bytes };
        let secret: [u8; KEY_BYTES] = secret.try_into().map_err(|secret: Vec<u8>| wrong(secret.len()))?;
        Ok(Some(Self::new(&secret)))
    }

    fn new(secret: &[u8; KEY_BYTES]) -> Self {
        let digest: [u8; 32] = Sha256::new().chain_update(b"drover master key").chain_update(secret).finalize().into();
        let name = hex(&digest[..NAME_BYTES]);
        let key = UnboundKey::new(&AES_256_GCM, secret).expect("32 bytes are a key of AES-256");
        Self { name, sealing: LessSafeKey::new(key) }
    }
}

impl Vault for MasterKeys {
    fn seal(&self, secret: &[u8], device: &DeviceKey, nonce: [u8; NONCE_BYTES]) -> Result<Sealed, ApiError> {
        let missing = || {
            let message = "there is no master key to seal a pre-shared key with: set registry.master_keys";
            ApiError::new(ErrorCode::FailedPrecondition, message)
        };
        let key = self.current.as_ref().ok_or_else(missing)?;
        let mut sealed = secret.to_vec();
        let nonce_of_it = Nonce::assume_unique_for_key(nonce);
        key.sealing
            .seal_in_place_append_tag(nonce_of_it, Aad::from(device.to_string()), &mut sealed)
            .map_err(|_| ApiError::new(ErrorCode::Internal, "the secret is too long to be sealed"))?;
        Ok(Sealed { master_key: key.name.clone(), nonce, secret: sealed })
    }

    fn open(&self, sealed: &Sealed, device: &DeviceKey) -> Result<Vec<u8>, ApiError> {
        let missing = || {
            let message = format!("the master key {} of a key of {device} is not there", sealed.master_key);
            ApiError::new(ErrorCode::FailedPrecondition, message)
        };
        let keys = [self.current.as_ref(), self.previous.as_ref()];
        let key = keys.into_iter().flatten().find(|key| key.name == sealed.master_key).ok_or_else(missing)?;
        let (mut secret, nonce) = (sealed.secret.clone(), Nonce::assume_unique_for_key(sealed.nonce));
        let opened = key.sealing.open_in_place(nonce, Aad::from(device.to_string()), &mut secret);
        let damaged = |_| ApiError::new(ErrorCode::DataLoss, format!("the sealed key of {device} is not its own"));
        Ok(opened.map_err(damaged)?.to_vec())
    }

    fn is_current(&self, sealed: &Sealed) -> bool {
        self.current.as_ref().is_some_and(|key| key.name == sealed.master_key)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use drover_types::{DeviceId, TenantId};

    use super::*;

    /// Fills with one byte.
    struct Same(u8);

    impl Random for Same {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(self.0);
        }
    }

    fn device(name: &str) -> DeviceKey {
        DeviceKey { tenant: TenantId::default_tenant(), device: DeviceId::new(name).expect("valid") }
    }

    fn read(dir: &Path) -> MasterKeys {
        MasterKeys::read(Some(dir)).expect("readable")
    }

    #[test]
    fn a_secret_opens_for_its_device_only_and_with_the_key_before_until_that_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let dir = directory.path().join("master");
        ensure(&dir, &Same(1)).expect("made");
        let mode = std::fs::metadata(dir.join(CURRENT)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let keys = read(&dir);
        let sealed = keys.seal(b"secret", &device("d"), [7; NONCE_BYTES]).expect("sealed");
        assert!(!sealed.secret.windows(6).any(|bytes| bytes == b"secret") && keys.is_current(&sealed));
        assert_eq!(keys.open(&sealed, &device("d")).as_deref(), Ok(b"secret".as_slice()));
        assert_eq!(keys.open(&sealed, &device("e")).expect_err("another's").code, ErrorCode::DataLoss);

        ensure(&dir, &Same(2)).expect("there is one");
        assert!(read(&dir).is_current(&sealed), "what is there stays");
        std::fs::rename(dir.join(CURRENT), dir.join(PREVIOUS)).expect("moved");
        ensure(&dir, &Same(2)).expect("made");
        let keys = read(&dir);
        assert!(!keys.is_current(&sealed) && keys.open(&sealed, &device("d")).is_ok());
        std::fs::remove_file(dir.join(PREVIOUS)).expect("removed");
        let refused = read(&dir).open(&sealed, &device("d")).expect_err("the key is gone");
        assert_eq!(refused.code, ErrorCode::FailedPrecondition);
        assert!(refused.message.contains(&sealed.master_key), "{}", refused.message);
    }

    #[test]
    fn without_a_key_nothing_is_sealed_and_a_file_that_is_none_is_named() {
        let keys = MasterKeys::read(None).expect("none");
        let refused = keys.seal(b"secret", &device("d"), [7; NONCE_BYTES]).expect_err("no key");
        assert!(refused.code == ErrorCode::FailedPrecondition && refused.message.contains("registry.master_keys"));
        let dir = tempfile::tempdir().expect("a directory");
        for (text, reason) in [("c2hvcnQ=", "has 5 bytes"), ("?", "is no base64")] {
            std::fs::write(dir.path().join(CURRENT), text).expect("written");
            let error = MasterKeys::read(Some(dir.path())).err().expect("refused").to_string();
            assert!(error.contains(reason) && error.contains("current"), "{error}");
            ensure(dir.path(), &Same(1)).expect_err("it is not overwritten");
        }
    }
}
