//! Plain text above, the socket's bytes below: TLS through rustls with our own buffers, or nothing at all.
//!
//! Reading never blocks and never owns a socket: whoever has bytes puts them into [`Channel::buffer`], whoever has a
//! socket takes [`Channel::transmit`]. Decrypted bytes go straight into the reader's buffer; only what does not fit is
//! kept here.

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::io;
use std::sync::Arc;

/// Room for received bytes when a connection is quiet: two full TLS records.
const BUFFER_QUIET: usize = 36 * 1024;
/// Room when it is busy: fewer system calls, about 500 small frames at once.
const BUFFER_BUSY: usize = 128 * 1024;
/// What one record can add to the plain text: header, tag and padding, rounded up.
const RECORD_OVERHEAD: usize = 128;

pub(super) struct Channel {
    tls: Option<Box<UnbufferedClientConnection>>,
    /// Received and not yet processed: `rx[head..tail]`.
    rx: Vec<u8>,
    head: usize,
    tail: usize,
    /// Decrypted and not yet read: `spill[spill_head..]`.
    spill: Vec<u8>,
    spill_head: usize,
    /// For the socket: `tx[tx_head..]`.
    tx: Vec<u8>,
    tx_head: usize,
    secured: bool,
    /// TLS broke: rustls must not be asked again, it would answer the same bytes with a second fatal alert.
    failed: bool,
    peer_closed: bool,
    /// The newest pong, held back until the budget allows it. The peer's flood of pings needs one answer.
    pong: Option<Vec<u8>>,
}

/// What a round with rustls came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Something was done, and there may be more.
    More,
    /// Nothing is left to do with the bytes at hand.
    Idle,
}

impl Channel {
    /// Without TLS; for loopback only.
    pub(super) fn plain() -> Self {
        Self {
            tls: None,
            rx: vec![0; BUFFER_QUIET],
            head: 0,
            tail: 0,
            spill: Vec::new(),
            spill_head: 0,
            tx: Vec::new(),
            tx_head: 0,
            secured: true,
            failed: false,
            peer_closed: false,
            pong: None,
        }
    }

    /// With TLS, the handshake's first message ready to be sent.
    pub(super) fn tls(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        let mut channel = Self::plain();
        channel.tls = Some(Box::new(UnbufferedClientConnection::new(config, name)?));
        channel.secured = false;
        channel.handshake()?;
        Ok(channel)
    }

    /// True when plain text can flow.
    pub(super) fn secured(&self) -> bool {
        self.secured
    }

    /// True when the peer said that nothing more will come.
    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Where received bytes go. Never empty: what cannot be processed at all is an error before the buffer is full.
    pub(super) fn buffer(&mut self) -> &mut [u8] {
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        } else if self.head > 0 {
            // A part of a record is left: at most one record is moved, once per read.
            self.rx.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        if self.rx.len() - self.tail < 4096 {
            self.rx.resize(self.rx.len() + BUFFER_QUIET, 0);
        }
        &mut self.rx[self.tail..]
    }

    /// So many bytes were put into the buffer.
    pub(super) fn received(&mut self, n: usize) {
        self.tail += n;
        if self.tail == self.rx.len() && self.rx.len() < BUFFER_BUSY {
            self.rx.resize(BUFFER_BUSY, 0);
        }
    }

    /// Bytes for the socket.
    pub(super) fn transmit(&self) -> &[u8] {
        &self.tx[self.tx_head..]
    }

    /// So many of them were taken.
    pub(super) fn transmitted(&mut self, n: usize) {
        self.tx_head += n;
        if self.tx_head >= self.tx.len() {
            self.tx.clear();
            self.tx_head = 0;
        }
    }

    /// Takes the newest pong that waits to be sent, if any.
    pub(super) fn take_pong(&mut self) -> Option<Vec<u8>> {
        self.pong.take()
    }

    /// True if a pong waits.
    pub(super) fn has_pong(&self) -> bool {
        self.pong.is_some()
    }

    /// Goes on with the TLS handshake as far as the received bytes allow.
    pub(super) fn handshake(&mut self) -> Result<(), rustls::Error> {
        while !self.secured {
            match self.step(&mut [], &mut 0, None) {
                Ok(Step::More) => {}
                Ok(Step::Idle) => break,
                Err(error) => {
                    self.flush_alert();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// One round with rustls: a record is decrypted into `out` (what does not fit is kept), a message of its own is
    /// queued, or, when nothing else is to be done, `plain` is encrypted.
    fn step(&mut self, out: &mut [u8], filled: &mut usize, plain: Option<&[u8]>) -> Result<Step, rustls::Error> {
        let Some(tls) = self.tls.as_mut().filter(|_| !self.failed) else { return Ok(Step::Idle) };
        let UnbufferedStatus { discard, state, .. } = tls.process_tls_records(&mut self.rx[self.head..self.tail]);
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut records)) => {
                while let Some(Ok(record)) = records.next_record() {
                    let n = record.payload.len().min(out.len() - *filled);
                    out[*filled..*filled + n].copy_from_slice(&record.payload[..n]);
                    *filled += n;
                    self.spill.extend_from_slice(&record.payload[n..]);
                }
                Ok(Step::More)
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut self.tx, |out| data.encode(out));
                Ok(Step::More)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Step::More)
            }
            Ok(ConnectionState::PeerClosed) => {
                self.peer_closed = true;
                Ok(Step::More)
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                self.secured = true;
                match plain {
                    Some(plain) => encrypt(&mut self.tx, plain.len(), |out| traffic.encrypt(plain, out)),
                    None => Ok(()),
                }
                .map(|()| Step::Idle)
            }
            // Blocked in the handshake, or closed by both: only more bytes, or nothing, can help.
            Ok(_) => Ok(Step::Idle),
            Err(error) => Err(error),
        };
        self.head += discard;
        step
    }

    /// After an error rustls has an alert to send; tell the peer why we leave.
    fn flush_alert(&mut self) {
        self.failed = true;
        // With what is still there, or rustls panics: it remembers places in the bytes it has seen.
        if let Some(tls) = self.tls.as_mut()
            && let UnbufferedStatus { discard, state: Ok(ConnectionState::EncodeTlsData(mut data)) } =
                tls.process_tls_records(&mut self.rx[self.head..self.tail])
        {
            encode(&mut self.tx, |out| data.encode(out));
            self.head += discard;
        }
    }

    /// Decrypts into `out` as much as there is; 0 if nothing is at hand.
    fn fill(&mut self, out: &mut [u8]) -> Result<usize, rustls::Error> {
        if self.spill_head < self.spill.len() {
            let n = out.len().min(self.spill.len() - self.spill_head);
            out[..n].copy_from_slice(&self.spill[self.spill_head..self.spill_head + n]);
            self.spill_head += n;
            if self.spill_head == self.spill.len() {
                self.spill.clear();
                self.spill_head = 0;
            }
            return Ok(n);
        }
        if self.tls.is_none() {
            let n = out.len().min(self.tail - self.head);
            out[..n].copy_from_slice(&self.rx[self.head..self.head + n]);
            self.head += n;
            return Ok(n);
        }
        let mut filled = 0;
        while self.head < self.tail && filled < out.len() && self.step(out, &mut filled, None)? == Step::More {}
        Ok(filled)
    }

    /// Puts plain text on its way to the socket.
    pub(super) fn send(&mut self, plain: &[u8]) -> Result<(), rustls::Error> {
        if self.tls.is_none() {
            self.tx.extend_from_slice(plain);
            return Ok(());
        }
        while self.step(&mut [], &mut 0, Some(plain))? == Step::More {}
        Ok(())
    }

    /// Tells the peer's TLS that nothing more will come; best effort.
    pub(super) fn close_notify(&mut self) {
        // Before the handshake is done there is nothing to end.
        if !self.secured || self.failed {
            return;
        }
        let Some(tls) = self.tls.as_mut() else { return };
        loop {
            // With what is still there, as above; nobody will read it.
            let records = &mut self.rx[self.head..self.tail];
            let UnbufferedStatus { discard, state, .. } = tls.process_tls_records(records);
            match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => while let Some(Ok(_)) = records.next_record() {},
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut self.tx, |out| data.encode(out)),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    // Nothing is lost if it does not fit: the socket is about to go.
                    let _ = encrypt(&mut self.tx, 2, |out| traffic.queue_close_notify(out));
                    return;
                }
                Ok(_) | Err(_) => return,
            }
            self.head += discard;
        }
    }

    /// Everything that waits for the socket, leaving nothing.
    pub(super) fn take_transmit(&mut self) -> Vec<u8> {
        let rest = self.tx.split_off(self.tx_head.min(self.tx.len()));
        self.tx.clear();
        self.tx_head = 0;
        rest
    }
}

fn encode(tx: &mut Vec<u8>, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) {
    let start = tx.len();
    let mut room = 1024;
    loop {
        tx.resize(start + room, 0);
        match encode(&mut tx[start..]) {
            Ok(n) => return tx.truncate(start + n),
            Err(EncodeError::InsufficientSize(size)) if size.required_size > room => room = size.required_size,
            Err(_) => return tx.truncate(start),
        }
    }
}

fn encrypt(
    tx: &mut Vec<u8>,
    plain_len: usize,
    mut encrypt: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), rustls::Error> {
    let start = tx.len();
    let mut room = plain_len + RECORD_OVERHEAD * (1 + plain_len / 16_384);
    loop {
        tx.resize(start + room, 0);
        match encrypt(&mut tx[start..]) {
            Ok(n) => {
                tx.truncate(start + n);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(size)) if size.required_size > room => room = size.required_size,
            Err(_) => {
                tx.truncate(start);
                return Err(rustls::Error::EncryptError);
            }
        }
    }
}

impl io::Read for Channel {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.fill(out) {
            // 0 would mean the end of the stream, and that is the socket's to say.
            Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(n) => Ok(n),
            Err(error) => {
                self.flush_alert();
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

impl io::Write for Channel {
    /// tungstenite writes one whole frame at a time, because nothing here ever blocks it. A pong is held back.
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        const PONG: u8 = 0x8a;
        if frame.first() == Some(&PONG) {
            self.pong = Some(frame.to_vec());
        } else {
            self.send(frame).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(frame.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
