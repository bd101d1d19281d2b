//! Certificates, judged by their ends.

use std::fs;
use std::path::Path;

use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::GeneralName;

use super::Finding;

/// A certificate that ends within this many seconds is worth a warning: 30 days.
const ENDS_SOON_S: i64 = 30 * 24 * 3600;
/// What to do about one that ends.
const RENEW: &str = "start drover again: it renews the server certificate; a CA has to be replaced";

/// Looks at the certificate `name` of the directory `pki`.
pub(super) fn look(pki: &Path, name: &'static str, now_s: i64) -> Finding {
    let path = pki.join(name);
    match fs::read(&path) {
        Ok(pem) => judge(name, &pem, now_s),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::ok(name, "not made yet"),
        Err(error) => Finding::fail(name, format!("{}: {error}", path.display()), "give permission to read it"),
    }
}

pub(super) fn judge(name: &'static str, pem: &[u8], now_s: i64) -> Finding {
    let malformed = |error: String| Finding::fail(name, format!("is malformed: {error}"), "restore it from a backup");
    let pem = match parse_x509_pem(pem) {
        Ok((_, pem)) => pem,
        Err(error) => return malformed(error.to_string()),
    };
    let certificate = match pem.parse_x509() {
        Ok(certificate) => certificate,
        Err(error) => return malformed(error.to_string()),
    };
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.iter().filter_map(shown).collect(),
        Ok(None) | Err(_) => Vec::new(),
    };
    let ends = certificate.validity().not_after;
    let named = if names.is_empty() { String::new() } else { format!(", names {}", names.join(" ")) };
    let message = format!("ends {ends}{named}");
    if ends.timestamp() <= now_s {
        return Finding::fail(name, message, RENEW);
    }
    if ends.timestamp() <= now_s + ENDS_SOON_S {
        return Finding::warn(name, message, RENEW);
    }
    Finding::ok(name, message)
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
            .map(std::net::IpAddr::from)
            .or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from))
            .ok()
            .map(|ip| ip.to_string()),
        // Names of another kind are not for servers.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use drover_host::SystemClock;
    use drover_types::Clock;

    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_certificate_is_judged_by_its_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let made = drover_registry::pki::ensure(directory.path(), &["edge.example".to_owned()], &SystemClock);
        let pem = fs::read(made.expect("made").server_cert).expect("there");
        let now_s = i64::try_from(SystemClock.now_ms() / 1000).expect("fits");
        let good = judge("server.pem", &pem, now_s);
        assert_eq!(good.verdict, Verdict::Ok);
        assert!(good.message.ends_with("names localhost 127.0.0.1 ::1 edge.example"), "{good:?}");
        let year = 365 * 24 * 3600;
        assert_eq!(judge("server.pem", &pem, now_s + 2 * year + 70 * 24 * 3600).verdict, Verdict::Warn);
        assert_eq!(judge("server.pem", &pem, now_s + 3 * year).verdict, Verdict::Fail);
    }
}
