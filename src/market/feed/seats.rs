//! Groups of streams, the seats that serve them, and the slots in which connections live.

use super::*;

/// Streams that share connections.
pub(super) struct Group {
    /// `market-N`
    name: Rc<str>,
    /// Indices of its streams.
    pub(super) streams: Vec<usize>,
    /// One a leg.
    pub(super) seats: Vec<Seat>,
    /// Who of the two legs was first.
    pub(super) books: [LegBooks; 2],
}

/// The place of the connection that serves a group on one leg.
pub(super) struct Seat {
    /// The slot of the connection that serves.
    pub(super) current: usize,
    /// The slot of the one that would.
    pub(super) successor: Option<usize>,
    /// Attempts begun under this name and leg.
    pub(super) epoch: u64,
    /// When the connection is to be replaced because of its age.
    pub(super) rotate_at: Instant,
    /// Not before this is there another successor in order to heal.
    pub(super) heal_after: Instant,
    /// Not before this is an announced end reason for another successor.
    pub(super) leave_after: Instant,
    /// Successors in a row that could not take over.
    pub(super) setbacks: u32,
    /// Not before this is there another socket of the other form.
    pub(super) side_after: Instant,
}

impl Feed {
    /// New groups for the streams of these symbols, with connections that begin to connect.
    pub(super) fn lay_out(&mut self, symbols: &[(crate::wire::SymbolId, &str)], now: Instant) {
        let limits = layout::Limits {
            per_connection: self.per_connection,
            by_url: self.by == SubscribeBy::Url,
            path: &self.base.path,
        };
        for wanted in layout::lay_out(&self.kinds, limits, symbols) {
            let group = self.free_group();
            for stream in wanted {
                let at = self.new_stream(stream, group);
                self.groups[group].streams.push(at);
            }
            for leg in 0..self.legs {
                self.fill_seat(group, leg, now);
            }
        }
    }

    /// A group without streams, an old one if there is one.
    fn free_group(&mut self) -> usize {
        if let Some(free) = self.groups.iter().position(|group| group.streams.is_empty() && group.seats.is_empty()) {
            return free;
        }
        let name = self.unused_name();
        self.groups.push(Group { name, streams: Vec::new(), seats: Vec::new(), books: Default::default() });
        self.groups.len() - 1
    }

    /// The stream of a symbol and kind, new or one that was wanted before.
    pub(super) fn new_stream(&mut self, wanted: layout::Wanted, group: usize) -> usize {
        let first = wanted.symbol.index() * SLOTS;
        if self.slots.len() < first + SLOTS {
            self.slots.resize(first + SLOTS, NONE);
            self.waiting.resize(wanted.symbol.index() + 1, 0);
            self.traded.resize(wanted.symbol.index() + 1, Traded::default());
        }
        let place = first + slot(wanted.kind);
        if let Some(stream) = self.streams.get_mut(self.slots[place] as usize) {
            (stream.wanted, stream.group) = (true, group);
            return self.slots[place] as usize;
        }
        let at = self.streams.len();
        self.slots[place] = at as u32;
        let mut stream = Stream::new(wanted.symbol, wanted.kind, wanted.name.into(), group);
        if self.legs > 1 {
            let race = match wanted.kind {
                StreamKind::AggTrade => race::Race::of_trades(),
                StreamKind::MarkPrice | StreamKind::Kline(_) => race::Race::of_others(),
            };
            stream.race = Some(Box::new(race));
        }
        self.streams.push(stream);
        at
    }

    fn fill_seat(&mut self, group: usize, leg: usize, now: Instant) {
        let streams = self.groups[group].streams.clone();
        let slot = self.connect(group, leg, Role::Current, self.by, streams, now);
        self.groups[group].seats.push(Seat {
            current: slot,
            successor: None,
            epoch: 0,
            rotate_at: Instant::FAR,
            heal_after: Instant::ZERO,
            leave_after: Instant::ZERO,
            setbacks: 0,
            side_after: Instant::ZERO,
        });
    }

    /// A connection in a free slot, which begins to connect at once. Its streams get a run on it.
    pub(super) fn connect(
        &mut self,
        group: usize,
        leg: usize,
        role: Role,
        by: SubscribeBy,
        streams: Vec<usize>,
        now: Instant,
    ) -> usize {
        let target = layout::target(&self.base.path, by, streams.iter().map(|at| &*self.streams[*at].name));
        let base = &self.base;
        let short = target.split_once("?streams=").map_or(target.as_str(), |(path, _)| path);
        let url = format!("{}://{}{short}", base.scheme, base.authority());
        let settings = Settings {
            host: base.host.clone(),
            port: base.port,
            tls: self.tls.clone(),
            target,
            deadlines: self.deadlines.clone(),
            backoff: self.backoff,
            message_bytes_max: MESSAGE_BYTES_MAX,
        };
        let mut session = Session::new(settings, self.rng.u64(..), now);
        session.hold(self.held_until, now);
        // A side socket has a name of its own; it is nobody's second row.
        let name = if role == Role::Side { self.unused_name() } else { self.groups[group].name.clone() };
        let mut connection = Connection::new(name, group, leg, role, session, now);
        (connection.url, connection.by, connection.streams) = (url.into(), by, streams);
        if let Some(seat) = self.groups[group].seats.get(leg) {
            self.connections[seat.current].lend_voice(&mut connection);
        }
        let free = |row: &Connection| row.role == Role::Vacant && row.session.is_settled();
        let slot = match self.connections.iter().position(free) {
            Some(slot) => {
                self.connections[slot] = connection;
                slot
            }
            None => {
                self.connections.push(connection);
                self.connections.len() - 1
            }
        };
        self.connections[slot].slot = slot;
        self.relabel(slot);
        let serves = role == Role::Current;
        for position in 0..self.connections[slot].streams.len() {
            let stream = self.connections[slot].streams[position];
            self.streams[stream].runs.push(Run::new(slot, serves));
        }
        self.arm(slot, now);
        slot
    }

    /// The first `market-N` that no group and no connection has.
    fn unused_name(&self) -> Rc<str> {
        let names = || self.connections.iter().filter(|row| row.role != Role::Vacant).map(|row| &row.name);
        let taken =
            |name: &str| names().chain(self.groups.iter().map(|group| &group.name)).any(|known| **known == *name);
        let mut number = self.groups.len();
        loop {
            let name = format!("market-{number}");
            if !taken(&name) {
                return name.into();
            }
            number += 1;
        }
    }

    pub(super) fn relabel(&mut self, slot: usize) {
        let connection = &self.connections[slot];
        let mut label = connection.name.to_string();
        if self.legs > 1 {
            write!(label, " leg {}", connection.leg_name()).ok();
        }
        if let Role::Successor(_) = connection.role {
            label.push_str(" (successor)");
        }
        self.connections[slot].label = label.into();
    }

    /// Numbers the next attempt: rows of one name and leg share the count.
    pub(super) fn next_epoch(&mut self, slot: usize) -> u64 {
        let connection = &self.connections[slot];
        match (connection.role, self.groups[connection.group].seats.get_mut(connection.leg)) {
            (Role::Current | Role::Successor(_), Some(seat)) => {
                seat.epoch += 1;
                seat.epoch
            }
            _ => connection.session.epoch() + 1,
        }
    }

    /// The seat of a connection that serves it, or would.
    pub(super) fn seat(&self, slot: usize) -> Option<&Seat> {
        let connection = &self.connections[slot];
        let seat = self.groups[connection.group].seats.get(connection.leg)?;
        (seat.current == slot || seat.successor == Some(slot)).then_some(seat)
    }

    pub(super) fn seat_mut(&mut self, slot: usize) -> Option<&mut Seat> {
        let connection = &self.connections[slot];
        let seat = self.groups[connection.group].seats.get_mut(connection.leg)?;
        (seat.current == slot || seat.successor == Some(slot)).then_some(seat)
    }

    /// The other leg's connection, if there is a second leg.
    pub(super) fn other_leg(&self, slot: usize) -> Option<usize> {
        let connection = &self.connections[slot];
        let seats = &self.groups[connection.group].seats;
        (seats.len() > 1).then(|| seats[1 - connection.leg.min(1)].current)
    }

    /// Two legs use different addresses where the name has several.
    pub(super) fn avoid_the_other_legs_address(&mut self, slot: usize) {
        let Some(other) = self.other_leg(slot) else { return };
        let session = &self.connections[other].session;
        let uses = !matches!(session.state(), State::Backoff { .. } | State::Resolving { .. } | State::Stopped);
        let address = session.address().filter(|_| uses);
        self.connections[slot].session.avoid(address);
    }

    /// Addresses have come: whoever is about to dial learns which one to leave to the other leg.
    pub(crate) fn before_dialling(&mut self, slot: usize) {
        if slot < self.connections.len() && self.connections[slot].role != Role::Vacant {
            self.avoid_the_other_legs_address(slot);
        }
    }

    /// A connection is no longer needed: its streams are not its any more, and it says goodbye.
    pub(super) fn retire(&mut self, slot: usize, ctx: &mut Context<'_>) {
        for position in 0..self.connections[slot].streams.len() {
            let at = self.connections[slot].streams[position];
            self.remove_run(slot, at, ctx);
        }
        let (group, leg) = (self.connections[slot].group, self.connections[slot].leg);
        if let Some(current) = self.groups[group].seats.get(leg).map(|seat| seat.current)
            && let Ok([current, retired]) = self.connections.get_disjoint_mut([current, slot])
        {
            current.take_voice_back(retired);
        }
        let connection = &mut self.connections[slot];
        connection.streams.clear();
        connection.to_ask.clear();
        connection.to_drop.clear();
        connection.pending.clear();
        connection.role = Role::Retiring;
        connection.session.stop(ctx.now.mono);
        self.vacate_if_over(slot);
        self.settle(slot, ctx);
    }

    pub(super) fn remove_run(&mut self, slot: usize, at: usize, ctx: &mut Context<'_>) {
        self.unwait(slot, at);
        let stream = &mut self.streams[at];
        let delivered = stream.run(slot).is_some_and(|run| run.state.is_live());
        stream.runs.retain(|run| run.slot != slot);
        if delivered {
            self.fell_back(at, ctx);
        }
    }

    /// A retired connection that has ended leaves its slot.
    pub(super) fn vacate_if_over(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        if connection.role == Role::Retiring && connection.session.is_stopped() {
            connection.role = Role::Vacant;
        }
    }
}
