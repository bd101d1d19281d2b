//! Client certificates in the handshake. That a client has the key of what it shows is always checked; who has issued it, only
//! where that is one of the platform's own authorities.
//!
//! What others have issued passes, within bounds: which of them count, and for which tenant, the registry knows, and it says
//! so at CONNECT.

use std::sync::Arc;

use drover_types::limits::{CERTIFICATE_CHAIN_BYTES_MAX, CERTIFICATE_CHAIN_MAX};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

/// What is never looked at.
#[derive(Debug, thiserror::Error)]
#[error(
    "{certificates} client certificates of {bytes} bytes, limits are {CERTIFICATE_CHAIN_MAX} and \
     {CERTIFICATE_CHAIN_BYTES_MAX}"
)]
struct TooLong {
    certificates: usize,
    bytes: usize,
}

/// Verifies what clients show, who need not show anything.
#[derive(Debug)]
pub struct Clients(Arc<dyn ClientCertVerifier>);

impl Clients {
    /// `own`: the platform's authorities. Clients are not told of them: they would hold back what others have issued.
    pub fn new(own: RootCertStore, provider: Arc<CryptoProvider>) -> Result<Self, VerifierBuilderError> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(own), provider);
        builder.allow_unauthenticated().clear_root_hint_subjects().build().map(Self)
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    /// Dates and purpose are checked whoever has issued it.
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let certificates = intermediates.len() + 1;
        let bytes = end_entity.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
        if certificates > CERTIFICATE_CHAIN_MAX || bytes > CERTIFICATE_CHAIN_BYTES_MAX {
            let error = OtherError(Arc::new(TooLong { certificates, bytes }));
            return Err(CertificateError::Other(error).into());
        }
        match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(ClientCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
