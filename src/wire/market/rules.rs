//! What must hold of a frame before anybody may believe it. Both readers end here.

use super::{Reject, RejectKind};
use crate::fixed::{Fixed, Wide};
use crate::time::UtcMs;
use crate::wire::{AggTrade, Kline, MarkPrice};

/// 2010-01-01T00:00:00Z: nothing of the venue is older.
const EARLIEST_MS: i64 = 1_262_304_000_000;
/// 2100-01-01T00:00:00Z: a time in other units than milliseconds lies outside.
const LATEST_MS: i64 = 4_102_444_800_000;

/// A refusal at a field.
pub(in crate::wire) const fn reject(kind: RejectKind, field: &'static str) -> Reject {
    Reject { kind, field: Some(field) }
}

/// Milliseconds as a time, if it is one of this century's.
#[inline(always)]
pub(in crate::wire) fn time(ms: i64, field: &'static str) -> Result<UtcMs, Reject> {
    if (EARLIEST_MS..LATEST_MS).contains(&ms) { Ok(UtcMs(ms)) } else { Err(reject(RejectKind::Time, field)) }
}

#[inline(always)]
fn positive(value: Fixed, field: &'static str) -> Result<(), Reject> {
    if value > Fixed::ZERO { Ok(()) } else { Err(reject(RejectKind::Number, field)) }
}

#[inline(always)]
fn number(holds: bool, field: &'static str) -> Result<(), Reject> {
    if holds { Ok(()) } else { Err(reject(RejectKind::Number, field)) }
}

/// Price and quantity are positive, ids are in order.
#[inline(always)]
pub(in crate::wire) fn trade(trade: &AggTrade) -> Result<(), Reject> {
    positive(trade.price, "p")?;
    positive(trade.qty, "q")?;
    number(trade.id >= 0, "a")?;
    number(trade.first_id >= 0, "f")?;
    number(trade.last_id >= trade.first_id, "l")
}

/// Mark and index are positive, and so is an estimated settle price if there is one.
#[inline(always)]
pub(in crate::wire) fn mark(mark: &MarkPrice) -> Result<(), Reject> {
    positive(mark.price, "p")?;
    positive(mark.index_price, "i")?;
    number(mark.settle_price.is_none_or(|price| price > Fixed::ZERO), "P")
}

/// Prices are positive and inside the range, takers' part is inside the whole, the candle ends after it began.
#[inline(always)]
pub(in crate::wire) fn kline(kline: &Kline) -> Result<(), Reject> {
    if kline.close_time <= kline.open_time {
        return Err(reject(RejectKind::Time, "T"));
    }
    positive(kline.open, "o")?;
    positive(kline.close, "c")?;
    positive(kline.high, "h")?;
    positive(kline.low, "l")?;
    number(kline.high >= kline.open.max(kline.close), "h")?;
    number(kline.low <= kline.open.min(kline.close), "l")?;
    number(kline.volume >= Wide::ZERO, "v")?;
    number(kline.quote_volume >= Wide::ZERO, "q")?;
    number((Wide::ZERO..=kline.volume).contains(&kline.taker_buy_volume), "V")?;
    number((Wide::ZERO..=kline.quote_volume).contains(&kline.taker_buy_quote_volume), "Q")?;
    number(kline.trades >= 0, "n")?;
    number(kline.first_id >= -1, "f")?;
    number(kline.last_id >= kline.first_id, "L")
}
