//! The exchange's end of one connection, in memory: it takes the client's bytes, answers the handshakes, and turns
//! messages into the bytes that a socket would carry, encrypted beforehand.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use std::io::{Read, Write};
use std::sync::Arc;
use tungstenite::handshake::derive_accept_key;

/// A certificate for 127.0.0.1, and the root it hangs from as PEM.
pub struct Identity {
    pub config: Arc<ServerConfig>,
    pub ca_pem: String,
}

impl Identity {
    pub fn new() -> Self {
        let key = || KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_key = key();
        let ca = params.self_signed(&ca_key).expect("a root can be signed");
        let issuer = Issuer::from_params(&params, &ca_key);
        let leaf_key = key();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address is a name");
        let leaf = leaf.signed_by(&leaf_key, &issuer).expect("a certificate can be signed");
        let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider speaks TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], secret)
            .expect("the key is the certificate's");
        Self { config: Arc::new(config), ca_pem: ca.pem() }
    }
}

pub struct Peer {
    tls: Option<Box<ServerConnection>>,
    request: Vec<u8>,
    upgraded: bool,
}

impl Peer {
    /// With TLS if there is an identity for it.
    pub fn new(identity: Option<&Identity>) -> Self {
        let tls = identity.map(|identity| {
            let mut tls = ServerConnection::new(identity.config.clone()).expect("the configuration is complete");
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Self { tls, request: Vec::new(), upgraded: false }
    }

    /// True once the upgrade was answered.
    pub fn upgraded(&self) -> bool {
        self.upgraded
    }

    /// Takes bytes of the client; returns the answer.
    pub fn take(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let plain_before = self.request.len();
        match &mut self.tls {
            None => self.request.extend_from_slice(bytes),
            Some(tls) => {
                while !bytes.is_empty() {
                    tls.read_tls(&mut bytes).expect("memory can be read");
                    let state = tls.process_new_packets().expect("the client speaks TLS");
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    tls.reader().read_exact(&mut plain).expect("so much was promised");
                    self.request.extend_from_slice(&plain);
                }
            }
        }
        let mut answer = Vec::new();
        if !self.upgraded && self.request.len() > plain_before && self.request.ends_with(b"\r\n\r\n") {
            self.upgraded = true;
            let request = String::from_utf8_lossy(&self.request);
            let key = request.lines().find_map(|line| {
                line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
            });
            let accept = derive_accept_key(key.expect("an upgrade has a key").1.trim().as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            match &mut self.tls {
                None => answer.extend_from_slice(head.as_bytes()),
                Some(tls) => tls.writer().write_all(head.as_bytes()).expect("there is no limit"),
            }
        }
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut answer).expect("memory takes everything");
            }
        }
        answer
    }

    /// Text messages for the socket, so many in each TLS record.
    pub fn seal(&mut self, messages: &[String], per_record: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(messages.iter().map(|text| text.len() + 32).sum());
        let mut record = Vec::new();
        for group in messages.chunks(per_record) {
            record.clear();
            group.iter().for_each(|text| frame(text, &mut record));
            match &mut self.tls {
                None => out.extend_from_slice(&record),
                Some(tls) => {
                    tls.writer().write_all(&record).expect("there is no limit");
                    while tls.wants_write() {
                        tls.write_tls(&mut out).expect("memory takes everything");
                    }
                }
            }
        }
        out
    }
}

/// One whole text message as a server sends it: unmasked.
fn frame(text: &str, out: &mut Vec<u8>) {
    out.push(0x81);
    match text.len() {
        short @ 0..126 => out.push(short as u8),
        middle @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            out.push(127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(text.as_bytes());
}
