//! TLS at the exchange's end of a wire: rustls over memory, so that the process's own TLS meets a real peer.
//!
//! Its randomness is not the seed's. It changes what bytes are, never how many: an Ed25519 key makes signatures of one
//! length, serial numbers and names are fixed. So cuts, delays and everything the process says stay the seed's alone.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use rustls::{ServerConfig, ServerConnection};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

/// Plain text of one record.
const RECORD_MAX: usize = 16 * 1024;

/// What the exchange shows to those who connect, and what they trust.
pub(super) struct Identity {
    pub(super) server: Arc<ServerConfig>,
    pub(super) ca_pem: String,
}

impl Identity {
    /// A fresh CA and a certificate of it for `host`.
    pub(super) fn new(host: &str) -> Self {
        Self::make(host).expect("a certificate with fixed parameters can be made")
    }

    fn make(host: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "simulated exchange");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(1_u64.into());
        let ca_key = KeyPair::generate_for(&PKCS_ED25519)?;
        let ca_pem = params.self_signed(&ca_key)?.pem();
        let issuer = Issuer::new(params, ca_key);
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.serial_number = Some(2_u64.into());
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let leaf = params.signed_by(&key, &issuer)?;
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())?;
        Ok(Self { server: Arc::new(server), ca_pem })
    }
}

/// The exchange's end of one wire.
pub(super) struct Secure {
    connection: ServerConnection,
    /// Bytes put on the wire, and bytes of them that the process has.
    sent: u64,
    delivered: u64,
    /// Plain text by the delivered byte that makes it readable: the last of its record.
    readable: VecDeque<(u64, Vec<u8>)>,
}

/// The process broke TLS.
pub(super) struct Broken;

impl Secure {
    /// On a fresh wire. `None` if the configuration cannot serve, which a fixed one can.
    pub(super) fn new(identity: &Identity) -> Option<Self> {
        let connection = ServerConnection::new(identity.server.clone()).ok()?;
        Some(Self { connection, sent: 0, delivered: 0, readable: VecDeque::new() })
    }

    /// True until both sides can send plain text.
    pub(super) fn handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Takes in bytes of the process and gives back what they say. TLS may have an [answer](Self::answer) then.
    pub(super) fn received(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            self.connection.read_tls(&mut bytes).map_err(|_| Broken)?;
            self.connection.process_new_packets().map_err(|_| Broken)?;
            // The end of what is at hand shows as an error; there is nothing to be done about it.
            let _ = self.connection.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    /// What TLS itself has to say: handshake, tickets, alerts.
    pub(super) fn answer(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            if self.connection.write_tls(&mut bytes).is_err() {
                break;
            }
        }
        self.sent += bytes.len() as u64;
        bytes
    }

    /// Plain text as records, and from when on the process can read each of them.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in plain.chunks(RECORD_MAX) {
            if self.connection.writer().write_all(record).is_err() {
                break;
            }
            bytes.append(&mut self.answer());
            self.readable.push_back((self.sent, record.to_vec()));
        }
        bytes
    }

    /// Goodbye.
    pub(super) fn close(&mut self) -> Vec<u8> {
        self.connection.send_close_notify();
        self.answer()
    }

    /// So many more bytes have reached the process: the plain text that it can read now and could not before.
    pub(super) fn delivered(&mut self, n: usize) -> Vec<u8> {
        self.delivered += n as u64;
        let mut plain = Vec::new();
        while let Some((_, record)) = self.readable.pop_front_if(|(at, _)| *at <= self.delivered) {
            plain.extend(record);
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_identity_is_another_one_of_the_same_length() {
        let (one, two) = (Identity::new("venue.example"), Identity::new("venue.example"));
        assert_ne!(one.ca_pem, two.ca_pem);
        assert_eq!(one.ca_pem.len(), two.ca_pem.len());
    }
}
