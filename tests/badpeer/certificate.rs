//! Certificates, good and bad.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, date_time_ymd,
};

use super::{Mode, Tls};

type Certified = Result<(Arc<rustls::ServerConfig>, String), Box<dyn std::error::Error>>;

/// What this mode serves, and the root that its clients are told to trust.
pub(super) fn certify(mode: Mode) -> Certified {
    let (root, trusted) = authority("badpeer root")?;
    let (stranger, _) = authority("badpeer stranger")?;
    let mut leaf = CertificateParams::new(Vec::new())?;
    leaf.distinguished_name.push(DnType::CommonName, "badpeer");
    leaf.subject_alt_names = if mode == Mode::Tls(Tls::WrongName) {
        vec![SanType::DnsName("elsewhere.test".try_into()?)]
    } else {
        vec![SanType::DnsName("localhost".try_into()?), SanType::IpAddress([127, 0, 0, 1].into())]
    };
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    if mode == Mode::Tls(Tls::Expired) {
        (leaf.not_before, leaf.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    }
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, if mode == Mode::Tls(Tls::Untrusted) { &stranger } else { &root })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())?;
    Ok((Arc::new(config), trusted))
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}
