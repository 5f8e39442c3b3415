//! The trade tape of one symbol: a ring in id order that knows where it is not whole.
//!
//! Aggregate ids rise by one, so the tape can tell what it missed. Every id is counted once: pushed (`received`),
//! fetched (`backfilled`), or absent (`missing`, in an open hole). An id that comes again is a duplicate.

use crate::fixed::Fixed;
use crate::ring::Ring;
use crate::time::{Now, UtcMs};
use crate::wire::AggTrade;
use crate::wire::rest::PastTrade;
use std::collections::VecDeque;
use std::fmt;

/// One trade as kept: 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeRecord {
    /// Aggregate id.
    pub id: i64,
    /// Quote per base.
    pub price: Fixed,
    /// Base.
    pub qty: Fixed,
    /// First raw trade id inside.
    pub first_id: i64,
    /// Time of the first fill.
    pub trade_time: UtcMs,
    /// When it reached this process, ns since 1970-01-01Z.
    pub recv_ns: i64,
    /// Raw trades inside, less one: `last_id - first_id`.
    pub further_fills: u32,
    /// `event_time - trade_time` in ms.
    pub event_lag_ms: i32,
    /// True when the aggressor sold.
    pub buyer_is_maker: bool,
}

const _: () = assert!(std::mem::size_of::<TradeRecord>() <= 64);

/// Furthest a new id may be ahead of the newest one and still be believed: a day of the busiest symbol is below 1e7.
const JUMP_MAX: i64 = 100_000_000;
/// Furthest an id may be before the oldest one ever seen.
const BEFORE_MAX: i64 = 1_000;
/// Open holes listed one by one; beyond that the oldest is counted but no longer listed.
const HOLES_MAX: usize = 256;

/// What is known of the connection that a trade came over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// It had not brought a trade of the symbol before.
    First,
    /// It had.
    #[default]
    Further,
    /// It had, and other connections deliver the same.
    OneOfSeveral,
}

/// Why ids are absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoleReason {
    /// They were traded while no connection delivered.
    Reconnect,
    /// The connection was open; the venue, or a refused frame, left them out.
    Skipped,
}

impl fmt::Display for HoleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reconnect => "missed between two connections",
            Self::Skipped => "not delivered on an open connection",
        })
    }
}

/// Absent ids, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First absent id.
    pub from: i64,
    /// Last absent id.
    pub to: i64,
    /// Why.
    pub reason: HoleReason,
}

/// What a trade did to the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapeEvent {
    /// The next id.
    Next,
    /// A later id than the next one: a hole was opened.
    Gap(Hole),
    /// An id out of an open hole.
    Filled,
    /// An id already counted.
    Duplicate,
    /// An id too far off to be true.
    Refused,
}

impl TapeEvent {
    /// Was the trade taken in?
    pub const fn took(&self) -> bool {
        matches!(self, Self::Next | Self::Gap(_) | Self::Filled)
    }
}

/// The tape of one symbol.
#[derive(Clone, Debug)]
pub struct Tape {
    ring: Ring<TradeRecord>,
    /// Oldest and newest id ever taken; `None` before any.
    span: Option<(i64, i64)>,
    received: u64,
    backfilled: u64,
    duplicates: u64,
    missing: u64,
    /// In id order.
    holes: VecDeque<Hole>,
    price_decimals: u8,
    qty_decimals: u8,
}

impl Tape {
    /// An empty tape that keeps the newest `capacity` trades.
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Ring::new(capacity),
            span: None,
            received: 0,
            backfilled: 0,
            duplicates: 0,
            missing: 0,
            holes: VecDeque::new(),
            price_decimals: 0,
            qty_decimals: 0,
        }
    }

    /// Takes in a trade that was pushed.
    pub fn push(&mut self, trade: &AggTrade, source: Source, now: Now) -> TapeEvent {
        let Some(record) = record(trade, now.utc_ns) else { return TapeEvent::Refused };
        let event = self.place(record, source);
        if event.took() {
            self.received += 1;
            self.note_decimals(trade.price_decimals, trade.qty_decimals);
        }
        event
    }

    /// Is this the next id, or one that is known to be absent?
    pub fn awaits(&self, id: i64) -> bool {
        let next = self.span.is_some_and(|(_, newest)| id == newest + 1);
        next || self.holes.iter().any(|hole| hole.from <= id && id <= hole.to)
    }

    /// Takes in a trade that was fetched.
    pub fn fill(&mut self, trade: &PastTrade, now: Now) -> TapeEvent {
        let Some(record) = past_record(trade, now.utc_ns) else { return TapeEvent::Refused };
        let event = self.place(record, Source::Further);
        if event.took() {
            self.backfilled += 1;
            self.note_decimals(trade.price_decimals, trade.qty_decimals);
        }
        event
    }

    fn place(&mut self, record: TradeRecord, source: Source) -> TapeEvent {
        let id = record.id;
        let Some((oldest, newest)) = self.span else {
            self.span = Some((id, id));
            self.ring.push(record);
            return TapeEvent::Next;
        };
        if id == newest + 1 {
            self.span = Some((oldest, id));
            self.ring.push(record);
            return TapeEvent::Next;
        }
        if id > newest {
            if id - newest > JUMP_MAX {
                return TapeEvent::Refused;
            }
            let reason = match source {
                Source::First => HoleReason::Reconnect,
                Source::Further | Source::OneOfSeveral => HoleReason::Skipped,
            };
            let hole = Hole { from: newest + 1, to: id - 1, reason };
            self.open_hole(self.holes.len(), hole);
            self.span = Some((oldest, id));
            self.ring.push(record);
            return TapeEvent::Gap(hole);
        }
        if id < oldest {
            if oldest - id > BEFORE_MAX {
                self.duplicates += 1;
                return TapeEvent::Duplicate;
            }
            if id + 1 < oldest {
                self.open_hole(0, Hole { from: id + 1, to: oldest - 1, reason: HoleReason::Skipped });
            }
            self.span = Some((id, newest));
            self.insert(record);
            return TapeEvent::Filled;
        }
        if !self.close_in_hole(id) {
            self.duplicates += 1;
            return TapeEvent::Duplicate;
        }
        self.insert(record);
        TapeEvent::Filled
    }

    fn note_decimals(&mut self, price: u8, qty: u8) {
        self.price_decimals = self.price_decimals.max(price);
        self.qty_decimals = self.qty_decimals.max(qty);
    }

    fn insert(&mut self, record: TradeRecord) {
        let at = self.ring.partition_point(|held| held.id < record.id);
        self.ring.insert(at, record);
    }

    fn open_hole(&mut self, at: usize, hole: Hole) {
        self.missing += (hole.to - hole.from + 1) as u64;
        if self.holes.len() == HOLES_MAX {
            self.holes.pop_front();
            self.holes.insert(at.saturating_sub(1), hole);
        } else {
            self.holes.insert(at, hole);
        }
    }

    /// Takes one id out of the hole that it lies in, if there is one.
    fn close_in_hole(&mut self, id: i64) -> bool {
        let at = self.holes.partition_point(|hole| hole.to < id);
        let Some(hole) = self.holes.get_mut(at).filter(|hole| hole.from <= id) else { return false };
        self.missing -= 1;
        match (hole.from == id, hole.to == id) {
            (true, true) => {
                self.holes.remove(at);
            }
            (true, false) => hole.from = id + 1,
            (false, true) => hole.to = id - 1,
            (false, false) => {
                let rest = Hole { from: id + 1, ..*hole };
                hole.to = id - 1;
                self.holes.insert(at + 1, rest);
                if self.holes.len() > HOLES_MAX {
                    self.holes.pop_front();
                }
            }
        }
        true
    }

    /// The trades held, in id order.
    pub fn ring(&self) -> &Ring<TradeRecord> {
        &self.ring
    }
    /// Ids that were pushed, counted once each.
    pub fn received(&self) -> u64 {
        self.received
    }
    /// Ids that were fetched, counted once each.
    pub fn backfilled(&self) -> u64 {
        self.backfilled
    }
    /// The newest id ever taken; `None` before any.
    pub fn newest_id(&self) -> Option<i64> {
        self.span.map(|(_, newest)| newest)
    }
    /// Ids that came again.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }
    /// Ids known to be absent.
    pub fn missing(&self) -> u64 {
        self.missing
    }
    /// Open holes in id order.
    pub fn holes(&self) -> impl ExactSizeIterator<Item = &Hole> {
        self.holes.iter()
    }
    /// Most decimals a price's text has had.
    pub fn price_decimals(&self) -> u8 {
        self.price_decimals
    }
    /// Most decimals a quantity's text has had.
    pub fn qty_decimals(&self) -> u8 {
        self.qty_decimals
    }
}

/// REST does not say when the venue told of a trade; it did so no earlier than it happened.
fn past_record(trade: &PastTrade, recv_ns: i64) -> Option<TradeRecord> {
    Some(TradeRecord {
        id: trade.id,
        price: trade.price,
        qty: trade.qty,
        first_id: trade.first_id,
        trade_time: trade.trade_time,
        recv_ns,
        further_fills: u32::try_from(trade.last_id - trade.first_id).ok()?,
        event_lag_ms: 0,
        buyer_is_maker: trade.buyer_is_maker,
    })
}

fn record(trade: &AggTrade, recv_ns: i64) -> Option<TradeRecord> {
    Some(TradeRecord {
        id: trade.id,
        price: trade.price,
        qty: trade.qty,
        first_id: trade.first_id,
        trade_time: trade.trade_time,
        recv_ns,
        further_fills: u32::try_from(trade.last_id - trade.first_id).ok()?,
        event_lag_ms: i32::try_from(trade.event_time.0 - trade.trade_time.0).ok()?,
        buyer_is_maker: trade.buyer_is_maker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SymbolId;

    fn trade(id: i64) -> AggTrade {
        AggTrade {
            symbol: SymbolId(0),
            id,
            price: Fixed(6_500_010_000_000),
            qty: Fixed(1_000_000),
            first_id: id * 10,
            last_id: id * 10 + 3,
            trade_time: UtcMs(1_785_000_000_000 + id),
            event_time: UtcMs(1_785_000_000_150 + id),
            buyer_is_maker: id % 2 == 0,
            price_decimals: 2,
            qty_decimals: 3,
        }
    }

    const ONE: Source = Source::Further;
    const TWO: Source = Source::First;

    fn ids(tape: &Tape) -> Vec<i64> {
        tape.ring().iter().map(|record| record.id).collect()
    }

    #[test]
    fn a_hole_names_its_ids_and_closes_as_they_come() {
        let mut tape = Tape::new(100);
        let mut push = |id, source| tape.push(&trade(id), source, Now::default());
        assert_eq!(push(10, ONE), TapeEvent::Next);
        assert_eq!(push(11, ONE), TapeEvent::Next);
        let hole = Hole { from: 12, to: 15, reason: HoleReason::Reconnect };
        assert_eq!(push(16, TWO), TapeEvent::Gap(hole));
        assert_eq!(push(13, TWO), TapeEvent::Filled);
        assert_eq!(push(13, TWO), TapeEvent::Duplicate);
        assert_eq!(push(16, TWO), TapeEvent::Duplicate);
        assert_eq!(push(9, TWO), TapeEvent::Filled);
        assert_eq!(ids(&tape), [9, 10, 11, 13, 16]);
        assert_eq!((tape.received(), tape.duplicates(), tape.missing()), (5, 2, 3));
        let open: Vec<_> = tape.holes().map(|hole| (hole.from, hole.to)).collect();
        assert_eq!(open, [(12, 12), (14, 15)]);
        for id in [12, 15, 14] {
            tape.push(&trade(id), TWO, Now::default());
        }
        assert_eq!((tape.missing(), tape.holes().len()), (0, 0));
        assert_eq!(ids(&tape), [9, 10, 11, 12, 13, 14, 15, 16]);
    }

    #[test]
    fn whatever_order_ids_come_in_each_is_counted_once() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut tape = Tape::new(64);
            let mut distinct = std::collections::BTreeSet::new();
            for n in 0..300_u64 {
                let id = 500 + rng.i64(0..120);
                tape.push(&trade(id), ONE, Now::default());
                distinct.insert(id);
                let (low, high) = (*distinct.first().unwrap(), *distinct.last().unwrap());
                assert_eq!(tape.received(), distinct.len() as u64);
                assert_eq!(tape.received() + tape.duplicates(), n + 1);
                assert_eq!(tape.missing(), (high - low + 1) as u64 - distinct.len() as u64);
                assert!(ids(&tape).is_sorted());
                let listed: i64 = tape.holes().map(|hole| hole.to - hole.from + 1).sum();
                assert_eq!(listed as u64, tape.missing());
            }
        }
    }

    #[test]
    fn an_id_too_far_off_opens_no_hole_the_size_of_the_world() {
        let mut tape = Tape::new(8);
        tape.push(&trade(5), ONE, Now::default());
        assert_eq!(tape.push(&AggTrade { id: i64::MAX, ..trade(5) }, ONE, Now::default()), TapeEvent::Refused);
        assert_eq!(tape.push(&trade(6), ONE, Now::default()), TapeEvent::Next);
        assert_eq!(tape.missing(), 0);
    }
}
