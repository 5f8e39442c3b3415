//! The network between the process and the exchange: bytes keep their order, and everything else can go wrong.

use crate::time::{Instant, Span};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

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
    /// REST gets no answer.
    RestSilent,
    /// REST is refused a connection.
    RestFails,
    /// Everything to and from this address takes this much longer.
    SlowAt(IpAddr, Span),
    /// Nothing moves to and from this address; when it ends, everything comes at once.
    FreezeAt(IpAddr),
    /// What is sent to and from this address vanishes, for ever for connections that lived through it.
    BlackHoleAt(IpAddr),
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
            Self::RestSilent => "rest-silent",
            Self::RestFails => "rest-fails",
            Self::SlowAt(..) => "slow-at",
            Self::FreezeAt(_) => "freeze-at",
            Self::BlackHoleAt(_) => "black-hole-at",
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
    /// Where it leads.
    address: IpAddr,
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
    /// The same of single addresses.
    frozen_at: BTreeMap<IpAddr, Instant>,
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

/// What becomes of one way of a REST call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// It arrives at this time.
    Arrives(Instant),
    /// No connection: the process learns of it at this time.
    Refused(Instant),
    /// Nothing ever comes.
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
        Self { wires: Vec::new(), active: Vec::new(), frozen_until: Instant::ZERO, frozen_at: BTreeMap::new(), rng }
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
        } else if let NetFault::FreezeAt(address) = fault {
            let frozen = self.frozen_at.entry(address).or_default();
            *frozen = until.max(*frozen);
        } else if fault == NetFault::BlackHole {
            self.wires.iter_mut().for_each(|wire| wire.black_hole = true);
        } else if let NetFault::BlackHoleAt(address) = fault {
            self.wires.iter_mut().filter(|wire| wire.address == address).for_each(|wire| wire.black_hole = true);
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

    /// A REST request, or the answer to one, on its way.
    pub fn rest(&mut self, now: Instant) -> Rest {
        let latency = Span::from_us(self.rng.u64(20_000..200_000));
        // REST has an address of its own, which no fault of an address strikes.
        let arrival = self.delayed(now + latency, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if self.is(NetFault::RestSilent) || self.is(NetFault::SynLost) || self.is(NetFault::BlackHole) {
            Rest::Lost
        } else if self.is(NetFault::RestFails) || self.is(NetFault::Refused) {
            Rest::Refused(arrival)
        } else {
            Rest::Arrives(arrival)
        }
    }

    /// A new wire, and what becomes of the attempt to connect it.
    pub fn dial(&mut self, session: u32, address: IpAddr, now: Instant) -> (WireId, Dialled) {
        let latency = Span::from_us(self.rng.u64(50..20_000));
        let vanishing =
            [NetFault::SynLost, NetFault::BlackHole, NetFault::BlackHoleAt(address), NetFault::AddressDead(address)];
        let lost = vanishing.into_iter().any(|fault| self.is(fault));
        let mut wire = Wire {
            session,
            address,
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
        let answer = self.delayed(now + latency.times(2), address);
        let outcome = if lost {
            Dialled::Lost
        } else if self.is(NetFault::Refused) {
            Dialled::Refused(answer)
        } else {
            Dialled::Connected(answer)
        };
        (WireId(self.wires.len() - 1), outcome)
    }

    fn delayed(&self, at: Instant, address: IpAddr) -> Instant {
        let slow = self.active.iter().filter_map(|fault| {
            if let NetFault::SlowAt(slow, span) = fault {
                return (*slow == address).then_some(*span);
            }
            let NetFault::Slow(span) = fault else { return None };
            Some(*span)
        });
        let frozen_at = self.frozen_at.get(&address).copied().unwrap_or(Instant::ZERO);
        slow.fold(at, |at, span| at + span).max(self.frozen_until).max(frozen_at)
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
        let arrival = self.delayed(now + self.wires[id.0].latency, self.wires[id.0].address);
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
        let arrival = self.delayed(now + self.wires[id.0].latency, self.wires[id.0].address);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
    const NOW: Instant = Instant::from_ns(5_000_000_000);
    const LATER: Instant = Instant::from_ns(65_000_000_000);
    const BOTH_WAYS: [Direction; 2] = [Direction::ToExchange, Direction::ToProcess];

    /// A network, a wire to each address, the bad one second.
    fn network() -> (Network, [WireId; 2]) {
        let mut network = Network::new(fastrand::Rng::with_seed(1));
        let wires = [GOOD, BAD].map(|address| network.dial(0, address, Instant::ZERO).0);
        (network, wires)
    }

    /// When the last of some bytes arrives.
    fn arrives(network: &mut Network, wire: WireId, direction: Direction, now: Instant) -> Option<Instant> {
        network.send(wire, direction, false, b"bytes", now).pieces.last().map(|(at, _)| *at)
    }

    fn dialled(network: &mut Network, address: IpAddr, now: Instant) -> Option<Instant> {
        match network.dial(0, address, now).1 {
            Dialled::Connected(at) => Some(at),
            Dialled::Refused(_) | Dialled::Lost => None,
        }
    }

    /// Neither latency nor jitter takes longer.
    fn soon(now: Instant) -> Instant {
        now + Span::from_ms(41)
    }

    #[test]
    fn a_slow_address_delays_its_own_bytes_and_dials() {
        let (mut network, [good, bad]) = network();
        let slow = NetFault::SlowAt(BAD, Span::from_secs(2));
        network.begin(slow, LATER);
        for direction in BOTH_WAYS {
            assert!(arrives(&mut network, good, direction, NOW).unwrap() < soon(NOW));
            let late = arrives(&mut network, bad, direction, NOW).unwrap();
            assert!((NOW + Span::from_secs(2)..soon(NOW + Span::from_secs(2))).contains(&late));
        }
        assert!(network.signal(good, Direction::ToProcess, NOW).unwrap() < soon(NOW));
        assert!(network.signal(bad, Direction::ToProcess, NOW).unwrap() > NOW + Span::from_secs(2));
        assert!(dialled(&mut network, GOOD, NOW).unwrap() < soon(NOW));
        assert!(dialled(&mut network, BAD, NOW).unwrap() > NOW + Span::from_secs(2));
        network.end(slow);
        assert!(arrives(&mut network, bad, Direction::ToExchange, LATER).unwrap() < soon(LATER));
    }

    #[test]
    fn a_frozen_address_holds_everything_until_it_thaws() {
        let (mut network, [good, bad]) = network();
        network.begin(NetFault::FreezeAt(BAD), LATER);
        for direction in BOTH_WAYS {
            assert!(arrives(&mut network, good, direction, NOW).unwrap() < soon(NOW));
            let thawed = arrives(&mut network, bad, direction, NOW).unwrap();
            assert!((LATER..soon(LATER)).contains(&thawed));
            assert!(arrives(&mut network, bad, direction, NOW).unwrap() >= thawed);
        }
        assert!(dialled(&mut network, GOOD, NOW).unwrap() < soon(NOW));
        assert_eq!(dialled(&mut network, BAD, NOW), Some(LATER));
        network.end(NetFault::FreezeAt(BAD));
        let after = soon(LATER);
        assert!(arrives(&mut network, bad, Direction::ToProcess, after).unwrap() < soon(after));
    }

    #[test]
    fn a_black_hole_swallows_one_address_and_keeps_what_it_has() {
        let (mut network, [good, bad]) = network();
        network.begin(NetFault::BlackHoleAt(BAD), LATER);
        assert_eq!(dialled(&mut network, BAD, NOW), None);
        network.end(NetFault::BlackHoleAt(BAD));
        for direction in BOTH_WAYS {
            assert!(arrives(&mut network, good, direction, LATER).is_some());
            assert_eq!(arrives(&mut network, bad, direction, LATER), None);
            assert_eq!(network.signal(bad, direction, LATER), None);
        }
        assert!(dialled(&mut network, BAD, LATER).is_some());
    }
}
