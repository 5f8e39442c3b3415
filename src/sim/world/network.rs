//! The network between the process and the exchange: bytes keep their order, and everything else can go wrong.

use crate::time::{Instant, Span};

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
    /// New connections are refused at once.
    Refused,
    /// New connections are accepted, and nothing ever comes back on them.
    Mute,
    /// On new connections the exchange's bytes come one by one, this far apart.
    Trickle(Span),
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
    /// The exchange's bytes never come back.
    mute: bool,
    /// The exchange's bytes come one by one.
    trickle: Option<Span>,
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

    /// A fault ends.
    pub fn end(&mut self, fault: NetFault) {
        if let Some(at) = self.active.iter().position(|active| *active == fault) {
            self.active.swap_remove(at);
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
    pub fn dial(&mut self, session: u32, now: Instant) -> (WireId, Dialled) {
        let latency = Span::from_us(self.rng.u64(50..20_000));
        let trickle = self.active.iter().find_map(|fault| {
            let NetFault::Trickle(gap) = fault else { return None };
            Some(*gap)
        });
        let lost = self.is(NetFault::SynLost) || self.is(NetFault::BlackHole);
        self.wires.push(Wire {
            session,
            latency,
            mute: self.is(NetFault::Mute),
            trickle,
            black_hole: lost,
            closed: false,
            to_exchange: Lane::default(),
            to_process: Lane::default(),
        });
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
    pub fn send<'b>(
        &mut self,
        id: WireId,
        direction: Direction,
        bytes: &'b [u8],
        now: Instant,
    ) -> Vec<(Instant, &'b [u8])> {
        let arrival = self.delayed(now + self.wires[id.0].latency);
        let jitter = Span::from_us(self.rng.u64(0..300));
        let cut = if self.rng.u8(..) < 64 && bytes.len() > 1 { self.rng.usize(1..bytes.len()) } else { bytes.len() };
        let wire = &mut self.wires[id.0];
        if wire.black_hole || (wire.mute && direction == Direction::ToProcess) {
            return Vec::new();
        }
        let trickle = wire.trickle.filter(|_| direction == Direction::ToProcess);
        let lane = match direction {
            Direction::ToExchange => &mut wire.to_exchange,
            Direction::ToProcess => &mut wire.to_process,
        };
        let mut at = (arrival + jitter).max(lane.busy_until);
        let mut pieces = Vec::new();
        if let Some(gap) = trickle {
            // A deadline ends such a connection long before these are through.
            for byte in bytes.chunks(1).take(200) {
                at += gap;
                pieces.push((at, byte));
            }
        } else {
            let (first, second) = bytes.split_at(cut);
            pieces.push((at, first));
            if !second.is_empty() {
                at += Span::from_us(1 + jitter.as_us());
                pieces.push((at, second));
            }
        }
        lane.busy_until = at;
        pieces
    }

    /// When something that is no bytes (an end, a reset) arrives: behind all bytes before it. `None` if it vanishes.
    pub fn signal(&mut self, id: WireId, direction: Direction, now: Instant) -> Option<Instant> {
        let arrival = self.delayed(now + self.wires[id.0].latency);
        let wire = &self.wires[id.0];
        if wire.black_hole || (wire.mute && direction == Direction::ToProcess) {
            return None;
        }
        let lane = match direction {
            Direction::ToExchange => &wire.to_exchange,
            Direction::ToProcess => &wire.to_process,
        };
        Some(arrival.max(lane.busy_until) + Span::from_ns(1))
    }
}
