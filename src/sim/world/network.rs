//! The network between the process and the exchange: bytes keep their order, and everything else can go wrong.

use crate::time::{Instant, Span};
use std::net::IpAddr;

/// What a path holds back at most before it breaks down silently: a trickle fills it in no time.
const BACKLOG_MAX: Span = Span::from_secs(12);

/// What the network does while a fault is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetFault {
    /// Name lookups get no answer.
    ResolverSilent,
    /// Name lookups take this long.
    ResolverSlow(Span),
    /// Name lookups fail at once.
    ResolverFails,
    /// New connections get no answer.
    SynLost,
    /// New connections to this address get no answer.
    AddressDead(IpAddr),
    /// New connections are refused at once.
    Refused,
    /// New connections are accepted, and nothing ever comes back on them.
    Mute,
    /// On new connections so many of the exchange's bytes come, and nothing after them.
    MuteAfter(u64),
    /// On new connections TLS is answered, and nothing comes back after it.
    MuteUpgrade,
    /// New connections are reset behind so many of the exchange's bytes.
    CutAfter(u64),
    /// On new connections the exchange's bytes come one by one, this far apart.
    Trickle(Span),
    /// The same from the end of the TLS handshake on.
    TrickleUpgrade(Span),
    /// Nothing moves; when it ends, everything comes at once.
    Freeze,
    /// What is sent on any connection vanishes, for ever for those that lived through it.
    BlackHole,
    /// Connections are reset when it begins.
    Reset,
    /// Connections are ended without a word when it begins.
    EndOfFile,
    /// Everything takes this much longer.
    Slow(Span),
}

impl NetFault {
    /// One word for its kind.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::ResolverSilent => "resolver-silent",
            Self::ResolverSlow(_) => "resolver-slow",
            Self::ResolverFails => "resolver-fails",
            Self::SynLost => "syn-lost",
            Self::AddressDead(_) => "address-dead",
            Self::Refused => "refused",
            Self::Mute => "mute",
            Self::MuteAfter(_) => "mute-after",
            Self::MuteUpgrade => "mute-upgrade",
            Self::CutAfter(_) => "cut-after",
            Self::Trickle(_) => "trickle",
            Self::TrickleUpgrade(_) => "trickle-upgrade",
            Self::Freeze => "freeze",
            Self::BlackHole => "black-hole",
            Self::Reset => "reset",
            Self::EndOfFile => "end-of-file",
            Self::Slow(_) => "slow",
        }
    }
}

/// A socket pair of the world. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireId(pub usize);

/// One direction of a wire.
#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    /// When the newest byte on it arrives: nothing overtakes.
    busy_until: Instant,
}

/// One connection as the network sees it.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The process's slot that dialled it.
    pub session: u32,
    /// One way.
    latency: Span,
    /// Bytes of the exchange that still come; none after them.
    comes: u64,
    /// They are followed by a reset instead of silence.
    cut: bool,
    /// Nothing comes back after the TLS handshake.
    mute_upgrade: bool,
    /// The exchange's bytes come one by one.
    trickle: Option<Span>,
    /// But not those of the TLS handshake.
    trickle_upgrade: bool,
    /// Nothing passes any more, in either direction, and nobody is told.
    black_hole: bool,
    /// Closed by the process.
    pub closed: bool,
    to_exchange: Lane,
    to_process: Lane,
}

/// All wires and what is wrong with the network now.
pub struct Network {
    wires: Vec<Wire>,
    active: Vec<NetFault>,
    frozen_until: Instant,
    rng: fastrand::Rng,
}

/// What a dial comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// Connected at this time.
    Connected(Instant),
    /// Refused at this time.
    Refused(Instant),
    /// Never answered.
    Lost,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the process.
    ToExchange,
    /// To the process.
    ToProcess,
}

/// What becomes of bytes that were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent<'b> {
    /// What arrives when.
    pub pieces: Vec<(Instant, &'b [u8])>,
    /// When both ends see the connection reset.
    pub cut: Option<Instant>,
}

impl Network {
    /// A network without faults.
    pub fn new(rng: fastrand::Rng) -> Self {
        Self { wires: Vec::new(), active: Vec::new(), frozen_until: Instant::ZERO, rng }
    }

    /// A wire.
    pub fn wire(&self, id: WireId) -> &Wire {
        &self.wires[id.0]
    }

    /// Marks a wire as closed by the process.
    pub fn close(&mut self, id: WireId) {
        self.wires[id.0].closed = true;
    }

    /// The wires that are not closed.
    pub fn open_wires(&self) -> impl Iterator<Item = WireId> + use<'_> {
        self.wires.iter().enumerate().filter(|(_, wire)| !wire.closed).map(|(at, _)| WireId(at))
    }

    /// A fault begins; `until` is when it will end.
    pub fn begin(&mut self, fault: NetFault, until: Instant) {
        self.active.push(fault);
        if fault == NetFault::Freeze {
            self.frozen_until = self.frozen_until.max(until);
        }
        if fault == NetFault::BlackHole {
            for wire in &mut self.wires {
                wire.black_hole = true;
            }
        }
    }

    /// A fault ends. What a trickle holds back still trickles; what is sent from now on comes behind it as usual. A
    /// connection that has fallen silent stays so.
    pub fn end(&mut self, fault: NetFault) {
        if let Some(at) = self.active.iter().position(|active| *active == fault) {
            self.active.swap_remove(at);
        }
        if let NetFault::Trickle(gap) | NetFault::TrickleUpgrade(gap) = fault {
            for wire in self.wires.iter_mut().filter(|wire| wire.trickle == Some(gap)) {
                wire.trickle = None;
            }
        }
        if let NetFault::MuteAfter(_) | NetFault::CutAfter(_) = fault {
            for wire in self.wires.iter_mut().filter(|wire| wire.comes > 0) {
                wire.comes = u64::MAX;
            }
        }
    }

    fn is(&self, fault: NetFault) -> bool {
        self.active.contains(&fault)
    }

    /// When the answer to a lookup comes, and whether it is a good one; `None` if never.
    pub fn lookup(&mut self, now: Instant) -> Option<(Instant, bool)> {
        if self.is(NetFault::ResolverSilent) {
            return None;
        }
        let slow = self.active.iter().find_map(|fault| {
            let NetFault::ResolverSlow(span) = fault else { return None };
            Some(*span)
        });
        let usual = Span::from_us(self.rng.u64(200..20_000));
        Some((now + slow.unwrap_or(usual), !self.is(NetFault::ResolverFails)))
    }

    /// A new wire, and what becomes of the attempt to connect it.
    pub fn dial(&mut self, session: u32, address: IpAddr, now: Instant) -> (WireId, Dialled) {
        let latency = Span::from_us(self.rng.u64(50..20_000));
        let lost =
            self.is(NetFault::SynLost) || self.is(NetFault::BlackHole) || self.is(NetFault::AddressDead(address));
        let mut wire = Wire {
            session,
            latency,
            comes: u64::MAX,
            cut: false,
            mute_upgrade: self.is(NetFault::MuteUpgrade),
            trickle: None,
            trickle_upgrade: false,
            black_hole: lost,
            closed: false,
            to_exchange: Lane::default(),
            to_process: Lane::default(),
        };
        for fault in &self.active {
            if let NetFault::MuteAfter(bytes) | NetFault::CutAfter(bytes) = fault {
                (wire.comes, wire.cut) = (*bytes, matches!(fault, NetFault::CutAfter(_)));
            } else if let NetFault::Trickle(gap) | NetFault::TrickleUpgrade(gap) = fault {
                (wire.trickle, wire.trickle_upgrade) = (Some(*gap), matches!(fault, NetFault::TrickleUpgrade(_)));
            }
        }
        if self.is(NetFault::Mute) {
            (wire.comes, wire.cut) = (0, false);
        }
        self.wires.push(wire);
        let answer = self.delayed(now + latency.times(2));
        let outcome = if lost {
            Dialled::Lost
        } else if self.is(NetFault::Refused) {
            Dialled::Refused(answer)
        } else {
            Dialled::Connected(answer)
        };
        (WireId(self.wires.len() - 1), outcome)
    }

    fn delayed(&self, at: Instant) -> Instant {
        let slow = self.active.iter().filter_map(|fault| {
            let NetFault::Slow(span) = fault else { return None };
            Some(*span)
        });
        slow.fold(at, |at, span| at + span).max(self.frozen_until)
    }

    /// Cuts bytes into pieces and says when each arrives. Nothing overtakes; what vanishes is not in the list.
    /// `handshake` says that the bytes belong to a TLS handshake.
    pub fn send<'b>(
        &mut self,
        id: WireId,
        direction: Direction,
        handshake: bool,
        bytes: &'b [u8],
        now: Instant,
    ) -> Sent<'b> {
        let arrival = self.delayed(now + self.wires[id.0].latency);
        let jitter = Span::from_us(self.rng.u64(0..300));
        let cut = if self.rng.u8(..) < 64 && bytes.len() > 1 { self.rng.usize(1..bytes.len()) } else { bytes.len() };
        let wire = &mut self.wires[id.0];
        let mut sent = Sent::default();
        if wire.black_hole {
            return sent;
        }
        let to_exchange = direction == Direction::ToExchange;
        let comes = if to_exchange { u64::MAX } else { wire.comes };
        let comes = bytes.len().min(usize::try_from(comes).unwrap_or(usize::MAX));
        if comes == 0 || (!to_exchange && wire.mute_upgrade && !handshake) {
            return sent;
        }
        let rest = bytes.len() - comes;
        let (bytes, cut) = (&bytes[..comes], cut.min(comes));
        let trickle = wire.trickle.filter(|_| !(to_exchange || wire.trickle_upgrade && handshake));
        let lane = if to_exchange { &mut wire.to_exchange } else { &mut wire.to_process };
        let mut at = (arrival + jitter).max(lane.busy_until);
        let mut broke_down = false;
        if let Some(gap) = trickle {
            for byte in bytes.chunks(1) {
                at += gap;
                if at.since(now) > BACKLOG_MAX {
                    broke_down = true;
                    break;
                }
                sent.pieces.push((at, byte));
            }
        } else {
            let (first, second) = bytes.split_at(cut);
            sent.pieces.push((at, first));
            if !second.is_empty() {
                at += Span::from_us(1 + jitter.as_us());
                sent.pieces.push((at, second));
            }
        }
        lane.busy_until = at;
        if !to_exchange && wire.comes != u64::MAX {
            wire.comes -= comes as u64;
            if wire.cut && rest > 0 {
                sent.cut = Some(at + Span::from_ns(1));
            }
        }
        if broke_down {
            (wire.comes, wire.cut) = (0, false);
        }
        sent
    }

    /// When something that is no bytes (an end, a reset) arrives: behind all bytes before it. `None` if it vanishes.
    pub fn signal(&mut self, id: WireId, direction: Direction, now: Instant) -> Option<Instant> {
        let arrival = self.delayed(now + self.wires[id.0].latency);
        let wire = &self.wires[id.0];
        let mute = direction == Direction::ToProcess && (wire.comes == 0 || wire.mute_upgrade);
        if wire.black_hole || mute {
            return None;
        }
        let lane = match direction {
            Direction::ToExchange => &wire.to_exchange,
            Direction::ToProcess => &wire.to_process,
        };
        Some(arrival.max(lane.busy_until) + Span::from_ns(1))
    }
}
