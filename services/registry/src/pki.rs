//! The platform's certificate authority and the listeners' certificate, as files in one directory; and the authority of
//! the network between its processes, which is another: no certificate of a device is good there.
//!
//! The authority is made once and never replaced: every device certificate hangs on it. Keys are readable by their
//! owner only and never logged. `ring`, below `rcgen`, draws its own randomness.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drover_types::{ApiError, Clock, DeviceKey, ErrorCode, hex};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::ports::{CertificateAuthority, IssuedCertificate};

const DAY_MS: u64 = 24 * 3600 * 1000;
/// How long the authority lasts, in milliseconds: ten years.
const AUTHORITY_MS: u64 = 3_650 * DAY_MS;
/// How long the listeners' certificate lasts, in milliseconds: 825 days, the longest some clients accept.
const SERVER_MS: u64 = 825 * DAY_MS;
/// A certificate with less than this left is renewed, in milliseconds.
const RENEW_BEFORE_MS: u64 = 30 * DAY_MS;
/// Certificates are valid from this long ago, in milliseconds, for peers whose clock is late.
const CLOCK_SKEW_MS: u64 = DAY_MS;
/// Names every server certificate has.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PkiPaths {
    /// Certificate of the platform's authority, PEM.
    pub ca: PathBuf,
    /// Certificate of the listeners, PEM.
    pub server_cert: PathBuf,
    /// Its key, PKCS #8 PEM, mode 0600.
    pub server_key: PathBuf,
}

/// The files could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} exists without its key {}: restore the key, or move both away to start a new authority", cert.display(), key.display())]
    KeyMissing { cert: PathBuf, key: PathBuf },
    #[error("{} is malformed: {reason}; restore it from a backup", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes what is missing in `dir`: the authority at first, and a certificate for the listeners whenever there is none
/// that fits, lasts, and names `hostnames` besides localhost, 127.0.0.1 and ::1.
pub fn ensure(dir: &Path, hostnames: &[String], clock: &dyn Clock) -> Result<PkiPaths, PkiError> {
    ensure_certificate(dir, "server", &[ExtendedKeyUsagePurpose::ServerAuth], hostnames, clock)
}

/// As [`ensure`], in `dir` for the network between the platform's processes: one certificate, `service.pem`, with which
/// each of them serves and calls.
pub fn ensure_network(dir: &Path, hostnames: &[String], clock: &dyn Clock) -> Result<PkiPaths, PkiError> {
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    ensure_certificate(dir, "service", &both, hostnames, clock)
}

fn ensure_certificate(
    dir: &Path,
    name: &str,
    purposes: &[ExtendedKeyUsagePurpose],
    hostnames: &[String],
    clock: &dyn Clock,
) -> Result<PkiPaths, PkiError> {
    let authority = Authority::ensure(dir, clock)?;
    let paths = PkiPaths {
        ca: authority.path.clone(),
        server_cert: dir.join(format!("{name}.pem")),
        server_key: dir.join(format!("{name}.key")),
    };
    let names = server_names(hostnames);
    if !authority.serves(&paths, &names, clock.now_ms())? {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.clone())?;
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = purposes.to_vec();
        params.use_authority_key_identifier_extension = true;
        let now_ms = clock.now_ms();
        let certificate =
            sign(params, &key, &authority.issuer, now_ms.saturating_sub(CLOCK_SKEW_MS), now_ms + SERVER_MS)?;
        write_file(&paths.server_key, &key.serialize_pem(), 0o600)?;
        write_file(&paths.server_cert, &certificate.pem(), 0o644)?;
        tracing::info!(path = %paths.server_cert.display(), ?names, "server certificate made");
    }
    Ok(paths)
}

/// The platform's authority with its key in memory.
pub struct Authority {
    path: PathBuf,
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    ends_ms: u64,
}

impl Authority {
    /// Reads the authority in `dir`, or makes it.
    pub fn ensure(dir: &Path, clock: &dyn Clock) -> Result<Self, PkiError> {
        fs::create_dir_all(dir).map_err(|source| PkiError::Io { path: dir.to_owned(), source })?;
        let (path, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
        let (cert, key) = (read_file(&path)?, read_file(&key_path)?);
        let key = match (&cert, key) {
            (Some(_), None) => return Err(PkiError::KeyMissing { cert: path, key: key_path }),
            (_, Some(pem)) => KeyPair::from_pem(&pem).map_err(|e| malformed(&key_path, e))?,
            (None, None) => {
                let key = KeyPair::generate()?;
                write_file(&key_path, &key.serialize_pem(), 0o600)?;
                key
            }
        };
        let pem = match cert {
            Some(pem) => pem,
            None => {
                let pem = make_authority(&key, clock.now_ms())?;
                write_file(&path, &pem, 0o644)?;
                tracing::info!(path = %path.display(), "certificate authority made");
                pem
            }
        };
        let der = pem_to_der(&path, &pem)?;
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|e| malformed(&path, e))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(malformed(&key_path, "it is not the key of ca.pem"));
        }
        let ends_ms = ends_ms(&parsed);
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| malformed(&path, e))?;
        Ok(Self { path, pem, der, issuer, ends_ms })
    }

    /// Whether the listeners' files are there, fit together and to this authority, last, and have these names.
    fn serves(&self, paths: &PkiPaths, names: &[String], now_ms: u64) -> Result<bool, PkiError> {
        let (Some(cert), Some(key)) = (read_file(&paths.server_cert)?, read_file(&paths.server_key)?) else {
            return Ok(false);
        };
        let (Ok(der), Ok(key)) = (pem_to_der(&paths.server_cert, &cert), KeyPair::from_pem(&key)) else {
            return Ok(false);
        };
        let (Ok((_, cert)), Ok((_, authority))) =
            (X509Certificate::from_der(&der), X509Certificate::from_der(&self.der))
        else {
            return Ok(false);
        };
        Ok(cert.public_key().raw == key.subject_public_key_info()
            && cert.issuer().as_raw() == authority.subject().as_raw()
            && ends_ms(&cert) >= now_ms + RENEW_BEFORE_MS
            && names_of(&cert) == names)
    }
}

impl CertificateAuthority for Authority {
    fn issue(&self, device: &DeviceKey, from_ms: u64, until_ms: u64) -> Result<IssuedCertificate, ApiError> {
        if until_ms > self.ends_ms {
            let error = ApiError::invalid("duration_s", "the certificate would outlive its authority");
            return Err(error.over(format!("ends {} ms", self.ends_ms), format!("ends {until_ms} ms")));
        }
        let failed = |e: rcgen::Error| ApiError::new(ErrorCode::Internal, format!("certificate cannot be made: {e}"));
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, device.to_string());
        let uri = format!("drover://{device}").try_into().map_err(failed)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = sign(params, &key, &self.issuer, from_ms, until_ms).map_err(failed)?;
        Ok(IssuedCertificate {
            certificate_pem: certificate.pem(),
            certificate_der: certificate.der().to_vec(),
            private_key_pem: key.serialize_pem(),
            ca_pem: self.pem.clone(),
        })
    }
}

fn make_authority(key: &KeyPair, now_ms: u64) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    // Named after its key, so that a certificate of another authority is told by its issuer.
    let id = hex(&params.key_identifier(key)[..4]);
    params.distinguished_name.push(DnType::CommonName, format!("Drover platform CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now_ms.saturating_sub(CLOCK_SKEW_MS), now_ms + AUTHORITY_MS);
    Ok(params.self_signed(key)?.pem())
}

fn sign(
    mut params: CertificateParams,
    key: &KeyPair,
    issuer: &Issuer<'_, KeyPair>,
    from_ms: u64,
    until_ms: u64,
) -> Result<rcgen::Certificate, rcgen::Error> {
    set_validity(&mut params, from_ms, until_ms);
    params.signed_by(key, issuer)
}

/// Milliseconds since the Unix epoch; certificates know whole seconds.
fn set_validity(params: &mut CertificateParams, from_ms: u64, until_ms: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from_ms / 1000);
    params.not_after = epoch + Duration::from_secs(until_ms / 1000);
}

fn ends_ms(cert: &X509Certificate<'_>) -> u64 {
    u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0) * 1000
}

fn server_names(hostnames: &[String]) -> Vec<String> {
    let mut names: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
    for name in hostnames {
        let name = name.parse().map_or_else(|_| name.clone(), |ip: IpAddr| ip.to_string());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn names_of(cert: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = cert.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| ip.to_string()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn pem_to_der(path: &Path, pem: &str) -> Result<Vec<u8>, PkiError> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|e| malformed(path, e))?;
    Ok(pem.contents)
}

fn malformed(path: &Path, reason: impl ToString) -> PkiError {
    PkiError::Malformed { path: path.to_owned(), reason: reason.to_string() }
}

fn read_file(path: &Path) -> Result<Option<String>, PkiError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::Io { path: path.to_owned(), source }),
    }
}

/// Writes a file wholly or not at all.
pub(crate) fn write_file(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    let write = || -> io::Result<()> {
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|source| PkiError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use drover_types::FixedClock;

    use super::*;

    /// Late 2026, in milliseconds since the Unix epoch.
    const NOW_MS: u64 = 1_795_000_000_000;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).expect("readable")
    }

    #[test]
    fn files_are_made_once_and_keys_are_private() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = FixedClock::at(NOW_MS);
        let paths = ensure(dir.path(), &["gate.example".into(), "10.1.2.3".into()], &clock).expect("made");
        for key in [dir.path().join("ca.key"), paths.server_key.clone()] {
            let mode = fs::metadata(&key).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", key.display());
        }
        let before = [&paths.ca, &paths.server_cert, &paths.server_key].map(|path| read(path));
        assert_eq!(ensure(dir.path(), &["gate.example".into(), "10.1.2.3".into()], &clock).expect("there"), paths);
        assert_eq!([&paths.ca, &paths.server_cert, &paths.server_key].map(|path| read(path)), before);
        let der = pem_to_der(&paths.server_cert, &before[1]).expect("PEM");
        let (_, cert) = X509Certificate::from_der(&der).expect("a certificate");
        assert_eq!(names_of(&cert), ["localhost", "127.0.0.1", "::1", "gate.example", "10.1.2.3"]);
    }

    #[test]
    fn the_server_certificate_is_renewed_when_names_change_it_ends_or_its_key_is_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = FixedClock::at(NOW_MS);
        let paths = ensure(dir.path(), &[], &clock).expect("made");
        let (ca, first) = (read(&paths.ca), read(&paths.server_cert));
        ensure(dir.path(), &["new.example".into()], &clock).expect("made");
        let second = read(&paths.server_cert);
        assert_ne!(first, second);
        clock.advance(SERVER_MS - RENEW_BEFORE_MS + 1_000);
        ensure(dir.path(), &["new.example".into()], &clock).expect("made");
        let third = read(&paths.server_cert);
        assert_ne!(second, third);
        fs::write(&paths.server_key, KeyPair::generate().expect("a key").serialize_pem()).expect("written");
        ensure(dir.path(), &["new.example".into()], &clock).expect("made");
        assert_ne!(third, read(&paths.server_cert));
        assert_eq!(ca, read(&paths.ca));
    }

    #[test]
    fn an_authority_without_its_key_is_never_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = FixedClock::at(NOW_MS);
        ensure(dir.path(), &[], &clock).expect("made");
        fs::remove_file(dir.path().join("ca.key")).expect("removed");
        assert!(matches!(ensure(dir.path(), &[], &clock), Err(PkiError::KeyMissing { .. })));
    }
}
