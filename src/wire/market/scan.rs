//! The field scanner: the shapes the venue really sends, compared byte for byte and read in one pass.
//!
//! It knows the order of keys that live frames have (USD-M and spot, combined and raw, with and without the fields of
//! the last years). Anything else (another order, an escape, a stray blank, a number it cannot hold, a value that is
//! not to be believed) is `None`: not refused, but left to the general reader, which says what is wrong if anything is.
//! So nothing here may accept what that reader refuses; the tests hold the two against each other.

use super::rules;
use crate::fixed::{Fixed, Wide};
use crate::time::UtcMs;
use crate::wire::{AggTrade, Frame, Interval, Kline, MarkPrice, SymbolId, Symbols};

/// Digits before the point that always fit, eight decimals included.
const WHOLE_DIGITS_MAX: usize = 11;
/// One in each byte.
const ONES: u64 = 0x0101_0101_0101_0101;
/// The character 0 in each byte.
const ZEROS: u64 = 0x30 * ONES;
/// The top bit of each byte.
const TOPS: u64 = 0x80 * ONES;
const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The frame in `text`, if it has one of the usual shapes.
#[inline]
pub(super) fn frame(text: &[u8], symbols: &Symbols) -> Option<Frame> {
    let mut cursor = Cursor { rest: text };
    let combined = cursor.ate(b"{\"stream\":\"");
    if combined {
        cursor.plain_text()?;
        cursor.eat(b",\"data\":")?;
    }
    cursor.eat(b"{\"e\":\"")?;
    let frame = if cursor.ate(b"aggTrade\",\"E\":") {
        Frame::Trade(trade(&mut cursor, symbols)?)
    } else if cursor.ate(b"kline\",\"E\":") {
        Frame::Kline(kline(&mut cursor, symbols)?)
    } else {
        cursor.eat(b"markPriceUpdate\",\"E\":")?;
        Frame::Mark(mark(&mut cursor, symbols)?)
    };
    let end: &[u8] = if combined { b"}}" } else { b"}" };
    (cursor.rest == end).then_some(frame)
}

/// USD-M: `E a s p q nq f l T m st`; spot: `E s a p q f l T m M`; `nq`, `st` and `M` are as new or old as they are.
#[inline(always)]
fn trade(cursor: &mut Cursor<'_>, symbols: &Symbols) -> Option<AggTrade> {
    let event_time = cursor.time("E")?;
    let (id, symbol);
    if cursor.ate(b",\"a\":") {
        id = cursor.id()?;
        cursor.eat(b",\"s\":\"")?;
        symbol = cursor.symbol(symbols)?.0;
    } else {
        cursor.eat(b",\"s\":\"")?;
        symbol = cursor.symbol(symbols)?.0;
        cursor.eat(b",\"a\":")?;
        id = cursor.id()?;
    }
    cursor.eat(b",\"p\":\"")?;
    let (price, price_decimals) = cursor.fixed()?;
    cursor.eat(b",\"q\":\"")?;
    let (qty, qty_decimals) = cursor.fixed()?;
    if cursor.ate(b",\"nq\":\"") {
        cursor.decimal()?;
    }
    cursor.eat(b",\"f\":")?;
    let first_id = cursor.id()?;
    cursor.eat(b",\"l\":")?;
    let last_id = cursor.id()?;
    cursor.eat(b",\"T\":")?;
    let trade_time = cursor.time("T")?;
    cursor.eat(b",\"m\":")?;
    let buyer_is_maker = cursor.flag()?;
    if !cursor.ate(b",\"st\":1") && cursor.ate(b",\"M\":") {
        cursor.flag()?;
    }
    let trade = AggTrade {
        symbol,
        id,
        price,
        qty,
        first_id,
        last_id,
        trade_time,
        event_time,
        buyer_is_maker,
        price_decimals,
        qty_decimals,
    };
    rules::trade(&trade).ok()?;
    Some(trade)
}

/// `E s p ap P i r T st`; `ap` and `st` are new, and the documents have `i` before `P`.
#[inline(always)]
fn mark(cursor: &mut Cursor<'_>, symbols: &Symbols) -> Option<MarkPrice> {
    let event_time = cursor.time("E")?;
    cursor.eat(b",\"s\":\"")?;
    let symbol = cursor.symbol(symbols)?.0;
    cursor.eat(b",\"p\":\"")?;
    let price = cursor.fixed()?.0;
    if cursor.ate(b",\"ap\":\"") {
        cursor.decimal()?;
    }
    let (index_price, settle);
    if cursor.ate(b",\"P\":\"") {
        settle = cursor.fixed()?.0;
        cursor.eat(b",\"i\":\"")?;
        index_price = cursor.fixed()?.0;
    } else {
        cursor.eat(b",\"i\":\"")?;
        index_price = cursor.fixed()?.0;
        cursor.eat(b",\"P\":\"")?;
        settle = cursor.fixed()?.0;
    }
    cursor.eat(b",\"r\":\"")?;
    let funding_rate = if cursor.ate(b"\"") {
        None
    } else if cursor.ate(b"-") {
        Some(Fixed(-cursor.fixed()?.0.0))
    } else {
        Some(cursor.fixed()?.0)
    };
    cursor.eat(b",\"T\":")?;
    let next_funding = if cursor.ate(b"0") { None } else { Some(cursor.time("T")?) };
    cursor.ate(b",\"st\":1");
    let mark = MarkPrice {
        symbol,
        price,
        index_price,
        settle_price: Some(settle).filter(|price| *price != Fixed::ZERO),
        funding_rate,
        next_funding,
        event_time,
    };
    rules::mark(&mark).ok()?;
    Some(mark)
}

/// `E s k{t T s i f L o c h l v n x q V Q B}`; inside `k` the wire of 2026 has a blank after each comma.
#[inline(always)]
fn kline(cursor: &mut Cursor<'_>, symbols: &Symbols) -> Option<Kline> {
    let event_time = cursor.time("E")?;
    cursor.eat(b",\"s\":\"")?;
    let (symbol, name) = cursor.symbol(symbols)?;
    cursor.eat(b",\"k\":{\"t\":")?;
    let open_time = cursor.time("t")?;
    cursor.comma()?;
    cursor.eat(b"\"T\":")?;
    let close_time = cursor.time("T")?;
    cursor.comma()?;
    cursor.eat(b"\"s\":\"")?;
    cursor.rest = cursor.rest.strip_prefix(name)?;
    cursor.eat(b"\"")?;
    cursor.comma()?;
    cursor.eat(b"\"i\":\"")?;
    let interval = cursor.interval()?;
    cursor.comma()?;
    cursor.eat(b"\"f\":")?;
    let first_id = cursor.id_or_none()?;
    cursor.comma()?;
    cursor.eat(b"\"L\":")?;
    let last_id = cursor.id_or_none()?;
    cursor.comma()?;
    cursor.eat(b"\"o\":\"")?;
    let open = cursor.fixed()?.0;
    cursor.comma()?;
    cursor.eat(b"\"c\":\"")?;
    let (close, price_decimals) = cursor.fixed()?;
    cursor.comma()?;
    cursor.eat(b"\"h\":\"")?;
    let high = cursor.fixed()?.0;
    cursor.comma()?;
    cursor.eat(b"\"l\":\"")?;
    let low = cursor.fixed()?.0;
    cursor.comma()?;
    cursor.eat(b"\"v\":\"")?;
    let (volume, qty_decimals) = cursor.wide()?;
    cursor.comma()?;
    cursor.eat(b"\"n\":")?;
    let trades = cursor.id()?;
    cursor.comma()?;
    cursor.eat(b"\"x\":")?;
    let closed = cursor.flag()?;
    cursor.comma()?;
    cursor.eat(b"\"q\":\"")?;
    let quote_volume = cursor.wide()?.0;
    cursor.comma()?;
    cursor.eat(b"\"V\":\"")?;
    let taker_buy_volume = cursor.wide()?.0;
    cursor.comma()?;
    cursor.eat(b"\"Q\":\"")?;
    let taker_buy_quote_volume = cursor.wide()?.0;
    cursor.comma()?;
    cursor.eat(b"\"B\":\"")?;
    cursor.decimal()?;
    cursor.eat(b"}")?;
    let kline = Kline {
        symbol,
        interval,
        open_time,
        close_time,
        open,
        high,
        low,
        close,
        volume,
        quote_volume,
        taker_buy_volume,
        taker_buy_quote_volume,
        trades,
        first_id,
        last_id,
        closed,
        event_time,
        price_decimals,
        qty_decimals,
    };
    rules::kline(&kline).ok()?;
    Some(kline)
}

/// What is still to be read. A step that does not fit is the end of the whole try, so it need not restore anything.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// True and beyond `literal`, if it stands here.
    #[inline(always)]
    fn ate<const N: usize>(&mut self, literal: &[u8; N]) -> bool {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) if head == literal => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn eat<const N: usize>(&mut self, literal: &[u8; N]) -> Option<()> {
        self.ate(literal).then_some(())
    }

    /// A comma, with or without a blank after it.
    #[inline(always)]
    fn comma(&mut self) -> Option<()> {
        match self.rest {
            [b',', b' ', rest @ ..] | [b',', rest @ ..] => {
                self.rest = rest;
                Some(())
            }
            _ => None,
        }
    }

    /// The text up to the closing quote and beyond it, if nothing in it is escaped or should have been.
    #[inline(always)]
    fn plain_text(&mut self) -> Option<&'a [u8]> {
        let text = self.rest;
        let mut at = 0;
        let end = loop {
            let Some(chunk) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) else {
                break at + text[at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
            };
            let length = plain_bytes(*chunk);
            at += length;
            if length < 8 {
                break at;
            }
        };
        let (inside, rest) = text.split_at(end);
        self.rest = rest;
        self.eat(b"\"")?;
        Some(inside)
    }

    #[inline(always)]
    fn symbol(&mut self, symbols: &Symbols) -> Option<(SymbolId, &'a [u8])> {
        let name = self.plain_text()?;
        Some((symbols.find(name)?, name))
    }

    /// The venue's name of an interval: a number and one letter.
    #[inline(always)]
    fn interval(&mut self) -> Option<Interval> {
        let interval = match self.rest {
            [b'1', b'm', b'"', ..] => Interval::M1,
            _ => return Interval::parse(self.plain_text()?),
        };
        self.rest = &self.rest[3..];
        Some(interval)
    }

    #[inline(always)]
    fn flag(&mut self) -> Option<bool> {
        if self.ate(b"true") {
            return Some(true);
        }
        self.eat(b"false")?;
        Some(false)
    }

    /// Thirteen digits: milliseconds between 2001 and 2286, and the rules know better still.
    #[inline(always)]
    fn time(&mut self, field: &'static str) -> Option<UtcMs> {
        let (high, rest) = self.rest.split_first_chunk::<8>()?;
        let (high, high_count) = leading_digits(*high);
        let (low, low_count) = leading_digits(first_eight(rest));
        if high_count != 8 || low_count != 5 {
            return None;
        }
        self.rest = rest.get(5..)?;
        rules::time((number(high, 8) * 100_000 + number(low, 5)) as i64, field).ok()
    }

    /// A whole number of at most 15 digits without leading zeros.
    #[inline(always)]
    fn id(&mut self) -> Option<i64> {
        let text = self.rest;
        let (high, mut count) = leading_digits(first_eight(text));
        if count == 0 || (text[0] == b'0' && count > 1) {
            return None;
        }
        let mut id = number(high, count);
        if count == 8 {
            let (low, low_count) = leading_digits(first_eight(&text[8..]));
            if low_count == 8 {
                return None;
            }
            id = id * TENS[low_count] + number(low, low_count);
            count += low_count;
        }
        self.rest = text.get(count..)?;
        Some(id as i64)
    }

    /// A candle's id: -1 where it has none. The next byte is the caller's to check.
    #[inline(always)]
    fn id_or_none(&mut self) -> Option<i64> {
        if self.ate(b"-1") { Some(-1) } else { self.id() }
    }

    /// A decimal number and its closing quote: units of 1e-8, and how many decimals it had.
    #[inline(always)]
    fn decimal(&mut self) -> Option<(u64, u8)> {
        let text = self.rest;
        let (whole, mut count) = leading_digits(first_eight(text));
        let mut units = number(whole, count);
        if count == 8 {
            let (low, low_count) = leading_digits(first_eight(&text[8..]));
            if low_count > WHOLE_DIGITS_MAX - 8 {
                return None;
            }
            units = units * TENS[low_count] + number(low, low_count);
            count += low_count;
        }
        if count == 0 {
            return None;
        }
        units *= TENS[8];
        let after = text.get(count..)?;
        let (decimals, after) = match after {
            [b'"', after @ ..] => (0, after),
            [b'.', after @ ..] => {
                let (fraction, decimals) = leading_digits(first_eight(after));
                if decimals == 0 {
                    return None;
                }
                // what is missing to eight decimals are zeros, and zeros are what stands there
                units += number(fraction & (u64::MAX >> (64 - 8 * decimals)), 8);
                let [b'"', after @ ..] = after.get(decimals..)? else { return None };
                (decimals, after)
            }
            _ => return None,
        };
        self.rest = after;
        Some((units, decimals as u8))
    }

    #[inline(always)]
    fn fixed(&mut self) -> Option<(Fixed, u8)> {
        let (units, decimals) = self.decimal()?;
        Some((Fixed(i64::try_from(units).ok()?), decimals))
    }

    #[inline(always)]
    fn wide(&mut self) -> Option<(Wide, u8)> {
        self.decimal().map(|(units, decimals)| (Wide(i128::from(units)), decimals))
    }
}

/// The next eight bytes; zeros, which are no digits, where there are fewer.
#[inline(always)]
fn first_eight(text: &[u8]) -> [u8; 8] {
    match text.first_chunk::<8>() {
        Some(chunk) => *chunk,
        None => {
            let mut chunk = [0; 8];
            chunk[..text.len()].copy_from_slice(text);
            chunk
        }
    }
}

/// Eight bytes as digits, first in the lowest byte, and how many of them lead. What follows those is not defined.
#[inline(always)]
fn leading_digits(chunk: [u8; 8]) -> (u64, usize) {
    let digits = u64::from_le_bytes(chunk) ^ ZEROS;
    // a digit is 0..=9 now: adding 0x76 sets the top bit of anything else; a carry reaches only what is behind that
    let others = (digits.wrapping_add(0x76 * ONES) | digits) & TOPS;
    (digits, others.trailing_zeros() as usize / 8)
}

/// The number that the first `count` of eight digits make.
#[inline(always)]
fn number(digits: u64, count: usize) -> u64 {
    // leading zeros come in from below; neighbours become pairs, pairs fours, fours the number
    let digits = digits.unbounded_shl(64 - 8 * count as u32);
    let pairs = (digits.wrapping_mul(10 * 0x100 + 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100 * 0x1_0000 + 1) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(10_000 * 0x1_0000_0000 + 1) >> 32
}

/// How many of eight bytes lead that may stand in a JSON text as they are and do not end it.
#[inline(always)]
fn plain_bytes(chunk: [u8; 8]) -> usize {
    let bytes = u64::from_le_bytes(chunk);
    // the first byte below a limit is found exactly: borrows reach only what is behind it
    let below = |bytes: u64, limit: u64| bytes.wrapping_sub(limit * ONES) & !bytes & TOPS;
    let special = below(bytes, 0x20) | below(bytes ^ (0x22 * ONES), 1) | below(bytes ^ (0x5c * ONES), 1);
    special.trailing_zeros() as usize / 8
}
