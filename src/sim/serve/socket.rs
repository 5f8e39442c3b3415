//! One socket, from the client's connect to its end.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Token};
use rustls::ServerConnection;
use socket2::SockRef;

use super::faults::{Faults, Pace};
use super::server::Server;
use crate::sim::hub::PeerId;
use crate::sim::peer::{Ending, Rules, Stage};

/// One socket.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    /// Bytes for the socket; the first `sent` have left.
    out: Vec<u8>,
    sent: usize,
    pub(super) readable: bool,
    /// The client sends no more.
    eof: bool,
    /// We send no more.
    fin: bool,
    pub(super) held: bool,
    /// When a trickling stage gives its next byte.
    next_byte: Option<Instant>,
    /// When an ending connection is dropped whatever the client does.
    pub(super) until: Option<Instant>,
}

/// Why a socket is dropped.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// Both sides said goodbye.
    Clean,
    /// The client did not take the goodbye in time.
    Late,
    /// By a fault, the exchange, or a limit.
    Reset,
    /// The client is gone.
    Gone(io::ErrorKind),
    /// Not TLS, or not ours.
    Tls,
}

impl<R: Rules> Server<R> {
    pub(super) fn welcome(&mut self, mut stream: TcpStream, from: SocketAddr) {
        if self.wires.len() >= self.options.connections_max {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            self.lines.say(|| format!("connection from {from} reset: {} are open", self.options.connections_max));
            return;
        }
        let tls = match &self.tls {
            None => None,
            Some(config) => match ServerConnection::new(Arc::clone(config)) {
                Ok(tls) => Some(Box::new(tls)),
                Err(error) => {
                    self.lines.say(|| format!("connection from {from} dropped: {error}"));
                    return;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let id = self.hub.accept();
        let token = Token(FIRST_PEER + id.0 as usize);
        let registered = self.poll.registry().register(&mut stream, token, Interest::READABLE.add(Interest::WRITABLE));
        if let Err(error) = registered {
            self.hub.gone(id);
            self.lines.say(|| format!("connection from {from} dropped: {error}"));
            return;
        }
        self.lines.say(|| format!("connection {} from {from}", id.0));
        let wire = Wire {
            stream,
            tls,
            out: Vec::new(),
            sent: 0,
            readable: true,
            eof: false,
            fin: false,
            held: false,
            next_byte: None,
            until: None,
        };
        self.wires.insert(id, wire);
        self.again.push(id);
    }

    /// Reads what is there, sends what is queued, and ends what has ended.
    pub(super) fn service(&mut self, id: PeerId) {
        if self.frozen_until.is_some() || self.wires.get(&id).is_none_or(|wire| wire.held) {
            return;
        }
        if let Err(end) = self.read(id).and_then(|()| self.write(id)).and_then(|()| self.finish(id)) {
            self.end(id, end);
        }
    }

    fn read(&mut self, id: PeerId) -> Result<(), End> {
        let utc = self.clock.utc();
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let had_ended = wire.eof;
        let mut reads = 0;
        while wire.readable && !wire.eof && !self.faults.deaf {
            if reads == READS_PER_TURN {
                self.again.push(id);
                break;
            }
            reads += 1;
            let read = match &mut wire.tls {
                None => wire.stream.read(&mut self.buffer),
                Some(tls) => tls.read_tls(&mut wire.stream),
            };
            let n = match read {
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wire.readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(End::Gone(error.kind())),
            };
            wire.eof = n == 0;
            match &mut wire.tls {
                None => self.hub.received(id, &self.buffer[..n], utc),
                Some(tls) => {
                    let Ok(state) = tls.process_new_packets() else {
                        // The alert says why, if the client still listens.
                        let _ = tls.write_tls(&mut wire.stream);
                        return Err(End::Tls);
                    };
                    wire.eof |= state.peer_has_closed();
                    let mut left = state.plaintext_bytes_to_read();
                    while left > 0 {
                        match tls.reader().read(&mut self.buffer) {
                            Ok(n) if n > 0 => {
                                left = left.saturating_sub(n);
                                self.hub.received(id, &self.buffer[..n], utc);
                            }
                            _ => break,
                        }
                    }
                }
            }
        }
        // Told once: being told makes a connection worth another look, and that would never end.
        if wire.eof && !had_ended {
            self.hub.eof(id);
        }
        Ok(())
    }

    fn write(&mut self, id: PeerId) -> Result<(), End> {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        let now = Instant::now();
        loop {
            let mut moved = 0;
            let handshaking = wire.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
            if !handshaking && wire.out.len() - wire.sent < OUT_HIGH {
                let queued = self.hub.transmit(id);
                let (pace, stage_len) = match self.hub.stage(id) {
                    Stage::Http => (self.faults.rest, queued.len()),
                    Stage::Upgrading(left) => (self.faults.upgrade, left),
                    Stage::Open => (self.faults.frames, queued.len()),
                };
                let n = pace.allow(stage_len.min(queued.len()).min(OUT_HIGH), now, &mut wire.next_byte);
                if n > 0 {
                    moved = match &mut wire.tls {
                        Some(tls) => tls.writer().write(&queued[..n]).unwrap_or(0),
                        None => {
                            wire.out.extend_from_slice(&queued[..n]);
                            n
                        }
                    };
                    self.hub.transmitted(id, moved);
                }
            }
            if let Some(tls) = &mut wire.tls {
                while tls.wants_write() {
                    // Into memory: cannot fail.
                    let _ = tls.write_tls(&mut wire.out);
                }
            }
            let queued = wire.out.len() - wire.sent;
            let pace = if handshaking { self.faults.tls } else { Pace::Normal };
            let n = pace.allow(queued, now, &mut wire.next_byte);
            if n > 0 {
                match wire.stream.write(&wire.out[wire.sent..wire.sent + n]) {
                    Ok(n) => {
                        moved += n;
                        wire.sent += n;
                        if wire.sent == wire.out.len() {
                            wire.out.clear();
                            wire.sent = 0;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(End::Gone(error.kind())),
                }
            }
            if moved == 0 {
                return Ok(());
            }
        }
    }

    /// Takes an ending connection one step further.
    fn finish(&mut self, id: PeerId) -> Result<(), End> {
        let Some(wire) = self.wires.get_mut(&id) else { return Ok(()) };
        match self.hub.ending(id) {
            None => return Ok(()),
            Some(Ending::Cut) => return Err(End::Reset),
            Some(Ending::Close) => {}
        }
        // What a fault holds back may take longer.
        if self.faults == Faults::default() {
            wire.drop_after(LINGER, &mut self.sweep_at);
        }
        if self.hub.transmit(id).is_empty() && wire.out.is_empty() && !wire.fin {
            wire.fin = true;
            if let Some(tls) = &mut wire.tls {
                tls.send_close_notify();
                let _ = tls.write_tls(&mut wire.out);
                let _ = wire.stream.write(&wire.out);
                wire.out.clear();
            }
            // The reading side stays open for a while: dropping the socket with unread bytes would reset it, and the
            // client could lose what was just sent.
            let _ = wire.stream.shutdown(Shutdown::Write);
        }
        if wire.fin && wire.eof { Err(End::Clean) } else { Ok(()) }
    }

    pub(super) fn end(&mut self, id: PeerId, end: End) {
        let Some(mut wire) = self.wires.remove(&id) else { return };
        let _ = self.poll.registry().deregister(&mut wire.stream);
        if matches!(end, End::Reset) {
            // A linger of zero makes the close an RST.
            let _ = SockRef::from(&wire.stream).set_linger(Some(Duration::ZERO));
        }
        let tally = self.hub.tally_of(id);
        self.hub.gone(id);
        self.lines.say(|| {
            let why = match end {
                End::Clean => "closed".to_owned(),
                End::Late => "closed without the client's goodbye".to_owned(),
                End::Reset => "reset by us".to_owned(),
                End::Gone(kind) => format!("client gone: {kind}"),
                End::Tls => "TLS failed".to_owned(),
            };
            format!(
                "connection {} ended ({why}): {} requests, {} messages in, {} frames out",
                id.0, tally.requests, tally.messages, tally.frames
            )
        });
    }
}

impl Wire {
    /// Sets, once, how long the connection may still take to end.
    pub(super) fn drop_after(&mut self, span: Duration, sweep_at: &mut Option<Instant>) {
        let until = *self.until.get_or_insert_with(|| Instant::now() + span);
        *sweep_at = Some(sweep_at.map_or(until, |at| at.min(until)));
    }
}

pub(super) const FIRST_PEER: usize = 2;
/// How long a connection that ends may take to flush and to hear the client's goodbye.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// Reads of one connection before the others have their turn.
const READS_PER_TURN: usize = 8;
/// Bytes given to TLS and the socket ahead of what the client takes; the rest waits in the peer, where it is counted.
const OUT_HIGH: usize = 64 * 1024;
