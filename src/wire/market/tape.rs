//! The general reader: any JSON, keys in any order, unknown keys skipped with all that hangs below them.
//!
//! The text is copied once into memory of ours, where simd-json lays it out as a flat tape; what is read here is that
//! tape, without recursion. A key that is read and stands twice is refused, because no two readers of JSON agree on
//! which of the two counts. Keys nobody asks for may stand as often as they like.

use super::rules::reject;
use super::{Decoded, Reject, RejectKind, Reply, rules, text};
use crate::fixed::{self, Fixed, Wide};
use crate::time::UtcMs;
use crate::wire::{AggTrade, Frame, Interval, Kline, MarkPrice, SymbolId, Symbols};
use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};
use std::mem;

/// Objects and arrays inside one another; the venue's messages have four.
const DEPTH_MAX: usize = 128;
/// Memory that one large message needed is given back if it is more than the largest usual message takes.
const KEPT_BYTES: usize = 256 * 1024;
/// The same for the tape, which is wider than its text.
const KEPT_NODES: usize = 64 * 1024;
/// Characters of a reply's words that are kept.
const MESSAGE_CHARS: usize = 120;

/// Reads anything. Its memory is used again for each message.
pub(super) struct General {
    /// The text and the padding that simd-json reads beyond it.
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Tape<'static>,
    marks: Vec<MarkPrice>,
}

impl Default for General {
    fn default() -> Self {
        Self { scratch: Vec::new(), buffers: buffers(), tape: Tape(Vec::new()), marks: Vec::new() }
    }
}

fn buffers() -> Buffers {
    Buffers::with_max_depth(1024, DEPTH_MAX)
}

/// Well formed, but nothing that the venue says.
const SHAPELESS: Reject = Reject { kind: RejectKind::Shape, field: None };

/// A value: its node, and after it whatever hangs below.
type Value<'t, 'i> = &'t [Node<'i>];

impl General {
    pub(super) fn read(&mut self, text: &str, symbols: &Symbols) -> Result<Decoded, Reject> {
        self.scratch.clear();
        self.scratch.extend_from_slice(text.as_bytes());
        self.scratch.resize(text.len() + INPUT_PADDING, b' ');
        let mut tape = mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = simd_json::fill_tape_padded(&mut self.scratch, text.len(), &mut self.buffers, &mut tape);
        let decoded = match filled {
            Ok(()) => message(&tape.0, symbols, &mut self.marks),
            Err(_) => Err(Reject { kind: RejectKind::Json, field: None }),
        };
        self.tape = tape.reset();
        if self.scratch.capacity() > KEPT_BYTES || self.tape.0.capacity() > KEPT_NODES {
            self.scratch = Vec::new();
            self.buffers = buffers();
            self.tape = Tape(Vec::new());
        }
        decoded
    }

    pub(super) fn marks(&self) -> &[MarkPrice] {
        &self.marks
    }
}

/// One value of a tape that goes on behind it.
fn split<'t, 'i>(tape: Value<'t, 'i>) -> Option<(Value<'t, 'i>, Value<'t, 'i>)> {
    let below = match tape.first()? {
        Node::Object { count, .. } | Node::Array { count, .. } => *count,
        Node::String(_) | Node::Static(_) => 0,
    };
    tape.split_at_checked(1 + below)
}

/// The pairs of an object.
fn pairs<'t, 'i>(object: Value<'t, 'i>) -> impl Iterator<Item = (&'i str, Value<'t, 'i>)> {
    let mut rest = object.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [Node::String(key), values @ ..] = rest else { return None };
        let (value, after) = split(values)?;
        rest = after;
        Some((*key, value))
    })
}

/// The values of an array.
fn items<'t, 'i>(array: Value<'t, 'i>) -> impl Iterator<Item = Value<'t, 'i>> {
    let mut rest = array.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (value, after) = split(rest)?;
        rest = after;
        Some(value)
    })
}

/// Those values of an object that somebody asks for, each with its key.
struct Fields<'t, 'i, const N: usize> {
    keys: &'static [&'static str; N],
    values: [Option<Value<'t, 'i>>; N],
}

impl<'t, 'i, const N: usize> Fields<'t, 'i, N> {
    /// Picks the values of `keys` out of an object.
    fn of(object: Value<'t, 'i>, keys: &'static [&'static str; N]) -> Result<Self, Reject> {
        let mut values = [None; N];
        for (key, value) in pairs(object) {
            // most keys are one letter, so the first one tells almost all of them apart
            let same = |wanted: &&str| wanted.as_bytes().first() == key.as_bytes().first() && *wanted == key;
            let Some(place) = keys.iter().position(same) else { continue };
            if values[place].replace(value).is_some() {
                return Err(reject(RejectKind::Shape, keys[place]));
            }
        }
        Ok(Self { keys, values })
    }

    fn field(&self, place: usize) -> Field<'t, 'i> {
        Field { key: self.keys[place], value: self.values[place] }
    }
}

/// A key and the value that stands there, if one does.
#[derive(Clone, Copy)]
struct Field<'t, 'i> {
    key: &'static str,
    value: Option<Value<'t, 'i>>,
}

impl<'t, 'i> Field<'t, 'i> {
    fn refused(self, kind: RejectKind) -> Reject {
        reject(kind, self.key)
    }

    fn node(self) -> Result<Node<'i>, Reject> {
        self.value.and_then(|value| value.first()).copied().ok_or(self.refused(RejectKind::Missing))
    }

    /// `None` if the key is absent or its value null.
    fn given(self) -> Option<Self> {
        (!matches!(self.value, None | Some([Node::Static(StaticNode::Null), ..]))).then_some(self)
    }

    fn text(self) -> Result<&'i str, Reject> {
        if let Node::String(text) = self.node()? { Ok(text) } else { Err(self.refused(RejectKind::Type)) }
    }

    fn object(self) -> Result<Value<'t, 'i>, Reject> {
        let value = self.value.ok_or(self.refused(RejectKind::Missing))?;
        if matches!(value, [Node::Object { .. }, ..]) { Ok(value) } else { Err(self.refused(RejectKind::Type)) }
    }

    fn flag(self) -> Result<bool, Reject> {
        if let Node::Static(StaticNode::Bool(flag)) = self.node()? {
            Ok(flag)
        } else {
            Err(self.refused(RejectKind::Type))
        }
    }

    /// A whole number; one that does not fit is refused as `too_large`.
    fn integer(self, too_large: RejectKind) -> Result<i64, Reject> {
        if let Node::Static(node) = self.node()? {
            return match node {
                StaticNode::I64(number) => Ok(number),
                StaticNode::U64(number) => i64::try_from(number).map_err(|_| self.refused(too_large)),
                // simd-json makes a float of an integer beyond 64 bits
                StaticNode::F64(number) if number.abs() >= 9.2e18 => Err(self.refused(too_large)),
                StaticNode::F64(_) | StaticNode::Bool(_) | StaticNode::Null => Err(self.refused(RejectKind::Type)),
            };
        }
        Err(self.refused(RejectKind::Type))
    }

    fn id(self) -> Result<i64, Reject> {
        self.integer(RejectKind::Number)
    }

    fn time(self) -> Result<UtcMs, Reject> {
        rules::time(self.integer(RejectKind::Time)?, self.key)
    }

    fn decimal(self) -> Result<fixed::Parsed, Reject> {
        fixed::parse(self.text()?.as_bytes()).map_err(|_| self.refused(RejectKind::Number))
    }

    fn fixed(self) -> Result<(Fixed, u8), Reject> {
        let parsed = self.decimal()?;
        let units = i64::try_from(parsed.units).map_err(|_| self.refused(RejectKind::Number))?;
        Ok((Fixed(units), parsed.decimals))
    }

    fn wide(self) -> Result<(Wide, u8), Reject> {
        self.decimal().map(|parsed| (Wide(parsed.units), parsed.decimals))
    }

    /// A number that may also be absent, null or an empty text.
    fn fixed_if_given(self) -> Result<Option<Fixed>, Reject> {
        match self.given() {
            None => Ok(None),
            Some(field) if field.text()?.is_empty() => Ok(None),
            Some(field) => field.fixed().map(|(number, _)| Some(number)),
        }
    }

    fn symbol(self, symbols: &Symbols) -> Result<SymbolId, Reject> {
        symbols.find(self.text()?.as_bytes()).ok_or(self.refused(RejectKind::Symbol))
    }
}

/// A whole message, whatever it is.
fn message(tape: Value<'_, '_>, symbols: &Symbols, marks: &mut Vec<MarkPrice>) -> Result<Decoded, Reject> {
    if matches!(tape, [Node::Array { .. }, ..]) {
        return array(tape, symbols, marks);
    }
    if !matches!(tape, [Node::Object { .. }, ..]) {
        return Err(SHAPELESS);
    }
    let wrapper = Fields::of(tape, &["stream", "data"])?;
    let (stream, data) = (wrapper.field(0), wrapper.field(1));
    if stream.value.is_none() {
        return object(tape, symbols);
    }
    stream.text()?;
    match data.value {
        Some(value @ [Node::Array { .. }, ..]) => array(value, symbols, marks),
        Some(_) => object(data.object()?, symbols),
        None => Err(data.refused(RejectKind::Missing)),
    }
}

/// An object that is no wrapper: an event, a reply, or something known by its shape alone.
fn object(object: Value<'_, '_>, symbols: &Symbols) -> Result<Decoded, Reject> {
    let known =
        Fields::of(object, &["e", "event", "result", "error", "code", "msg", "id", "lastUpdateId", "u", "b", "a"])?;
    let [kind, event, result, error, code, message, id] = [0, 1, 2, 3, 4, 5, 6].map(|place| known.field(place));
    if kind.value.is_some() {
        return match kind.text()? {
            "aggTrade" => trade(object, symbols).map(|trade| Decoded::Frame(Frame::Trade(trade))),
            "markPriceUpdate" => mark(object, symbols).map(|mark| Decoded::Frame(Frame::Mark(mark))),
            "kline" => kline(object, symbols).map(|kline| Decoded::Frame(Frame::Kline(kline))),
            "serverShutdown" => Ok(Decoded::Shutdown),
            _ => Ok(Decoded::Other),
        };
    }
    if event.value.is_some() {
        let inner = Fields::of(event.object()?, &["e"])?.field(0);
        return Ok(if inner.text()? == "serverShutdown" { Decoded::Shutdown } else { Decoded::Other });
    }
    // an id of another kind (null, text) is nobody's whole number, and no reason to lose the reply
    let id = id.given().and_then(|id| id.id().ok()).and_then(|id| u64::try_from(id).ok());
    if error.given().is_some() {
        let inner = Fields::of(error.object()?, &["code", "msg"])?;
        return refusal(id, inner.field(0), inner.field(1));
    }
    if code.value.is_some() {
        return refusal(id, code, message);
    }
    if result.value.is_some() {
        let reply = if result.given().is_none() { Reply::Ack { id } } else { Reply::Result { id } };
        return Ok(Decoded::Control(reply));
    }
    // a depth snapshot or a spot bookTicker: neither says what it is
    let [snapshot, update, bid, ask] = [7, 8, 9, 10].map(|place| known.field(place).value.is_some());
    if snapshot || (update && bid && ask) {
        return Ok(Decoded::Other);
    }
    Err(SHAPELESS)
}

fn refusal(id: Option<u64>, code: Field<'_, '_>, message: Field<'_, '_>) -> Result<Decoded, Reject> {
    let code = code.id()?;
    let words = match message.given() {
        Some(message) => message.text()?,
        None => "",
    };
    Ok(Decoded::Control(Reply::Error { id, code, message: text::escaped(words, MESSAGE_CHARS) }))
}

/// An array of events. Of mark prices, those of known symbols are kept; any other kind is not ours.
fn array(array: Value<'_, '_>, symbols: &Symbols, marks: &mut Vec<MarkPrice>) -> Result<Decoded, Reject> {
    marks.clear();
    let (mut refused, mut first) = (0, None);
    let (mut are_marks, mut are_others) = (false, false);
    for item in items(array) {
        match row(item, symbols) {
            Row::Mark(mark) => {
                are_marks = true;
                marks.push(mark);
            }
            Row::NotOurs => are_marks = true,
            Row::Other => are_others = true,
            Row::Malformed(reason) => {
                are_marks = true;
                refused += 1;
                first.get_or_insert(reason);
            }
            Row::Shapeless => {
                refused += 1;
                first.get_or_insert(SHAPELESS);
            }
        }
    }
    match (are_marks, are_others) {
        (true, _) => Ok(Decoded::Marks { refused, first }),
        (false, true) => Ok(Decoded::Other),
        (false, false) => Err(SHAPELESS),
    }
}

/// What one row of an array was.
enum Row {
    Mark(MarkPrice),
    /// A mark price of a symbol that nobody asked for, or of the coin-margined market.
    NotOurs,
    /// A mark price that cannot be read.
    Malformed(Reject),
    /// Another kind of event.
    Other,
    /// No event at all.
    Shapeless,
}

fn row(item: Value<'_, '_>, symbols: &Symbols) -> Row {
    if !matches!(item, [Node::Object { .. }, ..]) {
        return Row::Shapeless;
    }
    let Ok(known) = Fields::of(item, &["e", "st"]) else { return Row::Shapeless };
    let (kind, market) = (known.field(0), known.field(1));
    match kind.text() {
        Ok("markPriceUpdate") => {}
        Ok(_) => return Row::Other,
        Err(_) => return Row::Shapeless,
    }
    if market.id() == Ok(2) {
        return Row::NotOurs;
    }
    match mark(item, symbols) {
        Ok(mark) => Row::Mark(mark),
        Err(Reject { kind: RejectKind::Symbol, .. }) => Row::NotOurs,
        Err(reason) => Row::Malformed(reason),
    }
}

fn trade(object: Value<'_, '_>, symbols: &Symbols) -> Result<AggTrade, Reject> {
    let fields = Fields::of(object, &["s", "a", "p", "q", "f", "l", "T", "E", "m"])?;
    let [symbol, id, price, qty, first, last, time, event_time, maker] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|place| fields.field(place));
    let symbol = symbol.symbol(symbols)?;
    let (price, price_decimals) = price.fixed()?;
    let (qty, qty_decimals) = qty.fixed()?;
    let trade = AggTrade {
        symbol,
        id: id.id()?,
        price,
        qty,
        first_id: first.id()?,
        last_id: last.id()?,
        trade_time: time.time()?,
        event_time: event_time.time()?,
        buyer_is_maker: maker.flag()?,
        price_decimals,
        qty_decimals,
    };
    rules::trade(&trade)?;
    Ok(trade)
}

fn mark(object: Value<'_, '_>, symbols: &Symbols) -> Result<MarkPrice, Reject> {
    let fields = Fields::of(object, &["s", "p", "i", "P", "r", "T", "E"])?;
    let [symbol, price, index, settle, rate, next, event_time] = [0, 1, 2, 3, 4, 5, 6].map(|place| fields.field(place));
    let symbol = symbol.symbol(symbols)?;
    let next_funding = match next.given() {
        None => None,
        Some(next) if next.integer(RejectKind::Time)? == 0 => None,
        Some(next) => Some(next.time()?),
    };
    let mark = MarkPrice {
        symbol,
        price: price.fixed()?.0,
        index_price: index.fixed()?.0,
        // zero is how the venue says that there is none
        settle_price: settle.fixed_if_given()?.filter(|price| *price != Fixed::ZERO),
        funding_rate: rate.fixed_if_given()?,
        next_funding,
        event_time: event_time.time()?,
    };
    rules::mark(&mark)?;
    Ok(mark)
}

fn kline(object: Value<'_, '_>, symbols: &Symbols) -> Result<Kline, Reject> {
    let outer = Fields::of(object, &["s", "k", "E"])?;
    let (symbol, candle, event_time) = (outer.field(0), outer.field(1), outer.field(2));
    let name = symbol.text()?;
    let symbol = symbol.symbol(symbols)?;
    let inner = Fields::of(
        candle.object()?,
        &["s", "i", "t", "T", "o", "h", "l", "c", "v", "q", "V", "Q", "n", "f", "L", "x"],
    )?;
    let [again, interval, open_time, close_time, open, high, low, close] =
        [0, 1, 2, 3, 4, 5, 6, 7].map(|place| inner.field(place));
    let [volume, quote_volume, taker, taker_quote, trades, first, last, closed] =
        [8, 9, 10, 11, 12, 13, 14, 15].map(|place| inner.field(place));
    if again.value.is_some() && again.text()? != name {
        return Err(again.refused(RejectKind::Symbol));
    }
    let interval = Interval::parse(interval.text()?.as_bytes()).ok_or(interval.refused(RejectKind::Type))?;
    let (close, price_decimals) = close.fixed()?;
    let (volume, qty_decimals) = volume.wide()?;
    let kline = Kline {
        symbol,
        interval,
        open_time: open_time.time()?,
        close_time: close_time.time()?,
        open: open.fixed()?.0,
        high: high.fixed()?.0,
        low: low.fixed()?.0,
        close,
        volume,
        quote_volume: quote_volume.wide()?.0,
        taker_buy_volume: taker.wide()?.0,
        taker_buy_quote_volume: taker_quote.wide()?.0,
        trades: trades.id()?,
        first_id: first.id()?,
        last_id: last.id()?,
        closed: closed.flag()?,
        event_time: event_time.time()?,
        price_decimals,
        qty_decimals,
    };
    rules::kline(&kline)?;
    Ok(kline)
}
