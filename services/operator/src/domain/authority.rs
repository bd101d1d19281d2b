//! Authorities of fleets: whether their certificates still are of use. What else they have to be is the registry's to say.

use super::condition::{READY, Verdict};
use super::problem::Problem;
use super::time::rfc3339;

/// When a certificate ends, milliseconds since the Unix epoch: with its last second (RFC 5280 section 4.1.2.5). `None`: that
/// cannot be read.
pub fn ends_ms(certificate: &str) -> Option<u64> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let last_s = pem.parse_x509().ok()?.validity().not_after.timestamp();
    u64::try_from(last_s).ok()?.checked_add(1)?.checked_mul(1_000)
}

/// Whether an authority that the registry has registers devices, when its certificate ends at `ends_ms`.
pub fn ready(ends_ms: Option<u64>, now_ms: u64) -> Verdict {
    match ends_ms.filter(|end| *end <= now_ms) {
        None => Verdict::holds(READY, "Registering", "devices are registered when they connect"),
        Some(end) => {
            let end = rfc3339(end);
            let message = format!("the authority's certificate has ended at {end}: it registers nobody; renew it");
            Verdict::fails(READY, &Problem::new("AuthorityEnded", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::condition::Truth;

    #[test]
    fn an_authority_registers_until_its_certificate_ends() {
        let truth = |ends_ms, now_ms| ready(ends_ms, now_ms).truth;
        assert_eq!((truth(Some(2_000), 1_999), truth(Some(2_000), 2_000)), (Truth::True, Truth::False));
        assert_eq!(truth(None, u64::MAX), Truth::True, "the registry has taken it");
        assert!(ready(Some(1_700_000_000_000), u64::MAX).message.contains("2023-11-14T22:13:20Z"));
    }

    #[test]
    fn the_end_of_a_certificate_is_read_and_nonsense_has_none() {
        let mut params = rcgen::CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed").pem();
        assert_eq!(ends_ms(&certificate).map(rfc3339).as_deref(), Some("2030-01-01T00:00:01Z"));
        assert_eq!(ends_ms("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"), None);
    }
}
