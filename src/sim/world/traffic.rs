//! Bytes between the process and the exchange: the shell's part on one side, the carrier's on the other.

use super::network::{Dialled, Direction, Rest, WireId};
use super::tls::{self, Secure};
use super::{Happening, World};
use crate::engine::{Command, Event, GetFailure, Job, JobId, Response, SessionId};
use crate::sim::peer::Ending;
use crate::sim::venue::RestRequest;
use crate::time::Span;
use std::hash::Hash;
use std::net::SocketAddr;

impl World {
    // ---- the process's side

    pub(super) fn session(&self, wire: WireId) -> SessionId {
        SessionId(self.network.wire(wire).session)
    }

    /// Is this the wire its session uses now? What comes over any other is the shell's to drop.
    pub(super) fn current(&self, wire: WireId) -> bool {
        self.wires.get(self.network.wire(wire).session as usize) == Some(&Some(wire))
    }

    pub(super) fn end_wire(&mut self, wire: WireId) {
        let session = self.network.wire(wire).session as usize;
        if self.wires.get(session) == Some(&Some(wire)) {
            self.wires[session] = None;
            self.witness.hung_up(session);
        }
        self.network.close(wire);
    }

    pub(super) fn deliver(&mut self, wire: WireId, mut bytes: &[u8]) {
        let session = self.session(wire);
        while !bytes.is_empty() && self.current(wire) {
            let buffer = self.engine.receive_buffer(session);
            let n = buffer.len().min(bytes.len());
            if n == 0 {
                return;
            }
            buffer[..n].copy_from_slice(&bytes[..n]);
            match &mut self.secure[wire.0] {
                Some(secure) => self.witness.delivered(session.index(), &secure.delivered(n)),
                None => self.witness.delivered(session.index(), &bytes[..n]),
            }
            bytes = &bytes[n..];
            self.tell(Event::Received(session, n));
        }
    }

    /// The shell's part: tell the engine, obey it, take its bytes and its notes.
    pub(super) fn tell(&mut self, event: Event) {
        self.engine.handle(event, self.stamp());
        while let Some(command) = self.engine.poll_command() {
            match command {
                Command::Dial { session, address } => {
                    if self.wires.len() <= session.index() {
                        self.wires.resize(session.index() + 1, None);
                    }
                    if let Some(wire) = self.wires[session.index()] {
                        self.hang_up(wire);
                    }
                    let (wire, outcome) = self.network.dial(session.0, address.ip(), self.now);
                    self.peers.push(None);
                    self.secure.push(None);
                    self.wires[session.index()] = Some(wire);
                    let label =
                        self.engine.feed().connection(session.index()).map_or("", |connection| &connection.label);
                    self.witness.dialled(session.index(), label, self.now);
                    match outcome {
                        Dialled::Connected(at) => self.at(at, Happening::Connected(wire)),
                        Dialled::Refused(at) => self.at(at, Happening::Refused(wire)),
                        Dialled::Lost => {}
                    }
                }
                Command::Hangup { session } => {
                    self.transmit(session);
                    if let Some(wire) = self.wires.get(session.index()).copied().flatten() {
                        self.hang_up(wire);
                    }
                }
                Command::Work { id, job: Job::Resolve { port, .. }, .. } => {
                    if let Some((at, good)) = self.network.lookup(self.now) {
                        let addresses = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
                        let result = if good { Ok(addresses) } else { Err("name not known".to_owned()) };
                        self.at(at, Happening::Resolved(id, result));
                    }
                }
                Command::Work { id, job: Job::Get { base, target }, .. } => {
                    let target = format!("{}{target}", base.path);
                    match self.network.rest(self.now) {
                        Rest::Arrives(at) => self.at(at, Happening::RestAsked(id, target)),
                        Rest::Refused(at) => {
                            let failure = GetFailure { words: "connect: refused".to_owned(), sent: false };
                            self.at(at, Happening::RestDone(id, Err(failure)));
                        }
                        Rest::Lost => {}
                    }
                }
                Command::Exit => self.exited = true,
            }
        }
        while let Some(session) = self.engine.poll_transmit() {
            self.transmit(session);
        }
        while let Some(stamped) = self.engine.poll_note() {
            let text = stamped.note.to_string();
            (stamped.at, &text).hash(&mut self.hash);
            self.witness.noted(&stamped, self.engine.feed());
            if self.keep_notes {
                self.notes.push(stamped);
            }
        }
    }

    /// A REST request reaches the exchange, and its answer leaves.
    pub(super) fn ask_exchange(&mut self, id: JobId, target: &str) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = RestRequest {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let utc = self.utc();
        let answer = self.hub.with(|exchange| exchange.rest(&request, utc));
        self.carry();
        let header = |name: &str| answer.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let response = Response {
            status: answer.status,
            retry_after: header("retry-after").and_then(|value| value.parse().ok()).map(Span::from_secs),
            used_weight: header("x-mbx-used-weight-1m").and_then(|value| value.parse().ok()),
            body: answer.body.clone().into_bytes(),
        };
        match self.network.rest(self.now) {
            Rest::Arrives(at) => self.at(at, Happening::RestDone(id, Ok(response))),
            Rest::Refused(at) => {
                let failure = GetFailure { words: "answer: connection reset".to_owned(), sent: true };
                self.at(at, Happening::RestDone(id, Err(failure)));
            }
            Rest::Lost => {}
        }
    }

    fn hang_up(&mut self, wire: WireId) {
        self.end_wire(wire);
        if let Some(at) = self.network.signal(wire, Direction::ToExchange, self.now) {
            self.at(at, Happening::ExchangeSeesEnd(wire));
        }
    }

    fn transmit(&mut self, session: SessionId) {
        let bytes = self.engine.transmit(session).to_vec();
        if bytes.is_empty() {
            return;
        }
        self.engine.transmitted(session, bytes.len());
        if let Some(wire) = self.wires.get(session.index()).copied().flatten() {
            self.send(wire, Direction::ToExchange, false, &bytes);
        }
    }

    fn send(&mut self, wire: WireId, direction: Direction, handshake: bool, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let sent = self.network.send(wire, direction, handshake, bytes, self.now);
        for (at, piece) in sent.pieces {
            let piece = piece.to_vec();
            let happening = match direction {
                Direction::ToExchange => Happening::ToExchange(wire, piece),
                Direction::ToProcess => Happening::ToProcess(wire, piece),
            };
            self.at(at, happening);
        }
        if let Some(at) = sent.cut {
            self.at(at, Happening::ProcessSeesEnd(wire, Some(std::io::ErrorKind::ConnectionReset)));
            self.at(at, Happening::ExchangeSeesEnd(wire));
        }
    }

    // ---- the exchange's side

    /// The exchange's end of a wire that is connected now.
    pub(super) fn accept(&mut self, wire: WireId) {
        let peer = self.hub.accept();
        self.peers[wire.0] = Some(peer);
        let at = peer.0 as usize;
        if self.peer_wires.len() <= at {
            self.peer_wires.resize(at + 1, None);
        }
        self.peer_wires[at] = Some(wire);
        self.secure[wire.0] = self.identity.as_ref().and_then(Secure::new);
    }

    /// Bytes of the process reach the exchange.
    pub(super) fn receive(&mut self, wire: WireId, bytes: &[u8]) {
        let Some(peer) = self.peers[wire.0] else { return };
        let Some(secure) = &mut self.secure[wire.0] else {
            self.hub.received(peer, bytes, self.utc());
            return self.carry();
        };
        let plain = secure.received(bytes);
        let (handshake, answer) = (secure.handshaking(), secure.answer());
        self.send(wire, Direction::ToProcess, handshake, &answer);
        match plain {
            Ok(plain) if plain.is_empty() => {}
            Ok(plain) => self.hub.received(peer, &plain, self.utc()),
            Err(tls::Broken) => self.hub.eof(peer),
        }
        self.carry();
    }

    /// Puts what the exchange wants to send on its wires.
    pub(super) fn carry(&mut self) {
        while let Some(peer) = self.hub.poll_touched() {
            let Some(wire) = self.peer_wires.get(peer.0 as usize).copied().flatten() else { continue };
            let bytes = self.hub.transmit(peer).to_vec();
            if !bytes.is_empty() {
                self.hub.transmitted(peer, bytes.len());
                let bytes = match &mut self.secure[wire.0] {
                    Some(secure) => secure.seal(&bytes),
                    None => bytes,
                };
                self.send(wire, Direction::ToProcess, false, &bytes);
            }
            if let Some(ending) = self.hub.ending(peer)
                && self.peers[wire.0].take().is_some()
            {
                if ending == Ending::Close
                    && let Some(secure) = &mut self.secure[wire.0]
                {
                    let goodbye = secure.close();
                    self.send(wire, Direction::ToProcess, false, &goodbye);
                }
                let kind = (ending == Ending::Cut).then_some(std::io::ErrorKind::ConnectionReset);
                if let Some(at) = self.network.signal(wire, Direction::ToProcess, self.now) {
                    self.at(at, Happening::ProcessSeesEnd(wire, kind));
                }
                self.hub.gone(peer);
            }
        }
    }
}
