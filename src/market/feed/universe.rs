//! Symbols come and go while everything else runs on.

use super::*;
use crate::wire::SymbolId;

impl Feed {
    /// Streams of these symbols are wanted from now on. They go to connections with room, else to new ones.
    pub(crate) fn add_symbols(&mut self, symbols: &[(SymbolId, &str)], ctx: &mut Context<'_>) {
        let now = ctx.now.mono;
        let fresh: Vec<(SymbolId, &str)> =
            symbols.iter().copied().filter(|(symbol, _)| !self.is_wanted(*symbol)).collect();
        let mut elsewhere = Vec::new();
        for (symbol, name) in fresh {
            match self.group_with_room() {
                Some(group) => self.add_to(group, symbol, name, ctx),
                None => elsewhere.push((symbol, name)),
            }
        }
        self.lay_out(&elsewhere, now);
    }

    /// Streams of these symbols are wanted no more.
    pub(crate) fn remove_symbols(&mut self, symbols: &[SymbolId], ctx: &mut Context<'_>) {
        let mut emptied = Vec::new();
        for symbol in symbols {
            if symbol.index() * SLOTS >= self.slots.len() {
                continue;
            }
            for at in self.of_symbol(*symbol).collect::<Vec<_>>() {
                if std::mem::replace(&mut self.streams[at].wanted, false) {
                    self.remove_stream(at, ctx);
                    emptied.push(self.streams[at].group);
                }
            }
            self.traded[symbol.index()] = Traded::default();
        }
        emptied.dedup();
        for group in emptied.into_iter().filter(|group| self.groups[*group].streams.is_empty()).collect::<Vec<_>>() {
            for seat in std::mem::take(&mut self.groups[group].seats) {
                self.retire(seat.current, ctx);
                if let Some(successor) = seat.successor {
                    self.retire(successor, ctx);
                }
            }
        }
    }

    /// Is any stream of the symbol wanted?
    pub fn is_wanted(&self, symbol: SymbolId) -> bool {
        symbol.index() * SLOTS < self.slots.len() && self.of_symbol(symbol).any(|at| self.streams[at].wanted)
    }

    /// A group whose connection takes one more symbol. Streams that are asked for by the URL take a new connection.
    fn group_with_room(&self) -> Option<usize> {
        if self.by == SubscribeBy::Url || self.per_connection == 1 {
            return None;
        }
        let room =
            |group: &Group| !group.seats.is_empty() && group.streams.len() + self.kinds.len() <= self.per_connection;
        self.groups.iter().position(room)
    }

    fn add_to(&mut self, group: usize, symbol: SymbolId, name: &str, ctx: &mut Context<'_>) {
        let mut slots: Vec<usize> = Vec::new();
        for seat in &self.groups[group].seats {
            slots.push(seat.current);
            slots.extend(seat.successor);
        }
        for kind in self.kinds.clone() {
            let wanted = layout::Wanted { symbol, kind, name: kind.stream_name(name) };
            let at = self.new_stream(wanted, group);
            self.groups[group].streams.push(at);
            for slot in &slots {
                let serves = self.connections[*slot].role == Role::Current;
                self.streams[at].runs.push(Run::new(*slot, serves));
                let connection = &mut self.connections[*slot];
                connection.streams.push(at);
                (connection.restored_told, connection.all_live_told) = (false, false);
                if connection.session.is_open() {
                    connection.to_ask.push_back(at);
                }
            }
        }
        for slot in slots {
            self.settle(slot, ctx);
        }
    }

    fn remove_stream(&mut self, at: usize, ctx: &mut Context<'_>) {
        let group = self.streams[at].group;
        self.groups[group].streams.retain(|stream| *stream != at);
        for slot in self.streams[at].runs.iter().map(|run| run.slot).collect::<Vec<_>>() {
            let asked = self.streams[at].run(slot).is_some_and(|run| run.state != StreamState::Wanted);
            if self.connections[slot].role == Role::Side {
                self.leave_side(slot, at, ctx);
                continue;
            }
            self.remove_run(slot, at, ctx);
            let connection = &mut self.connections[slot];
            connection.streams.retain(|stream| *stream != at);
            connection.to_ask.retain(|stream| *stream != at);
            connection.to_drop.retain(|stream| *stream != at);
            // A stream that came by the URL comes until the connection is replaced; it is passed over.
            if asked && connection.by == SubscribeBy::Message && connection.session.is_open() {
                connection.to_drop.push(at);
            }
            self.settle(slot, ctx);
        }
        let stream = &mut self.streams[at];
        (stream.failures_in_a_row, stream.last_data) = (0, None);
        // What was found out about it is found out anew when it comes back.
        (stream.polled, stream.unknown) = (false, false);
    }
}
