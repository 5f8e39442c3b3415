//! The text that others speak, and the words both sides of it share. Pure functions, no state of a connection.

pub mod market;
pub mod names;
pub mod rest;

pub use names::{Interval, Market, StreamKind, SymbolId, Symbols};

use crate::fixed::{Fixed, Wide};
use crate::time::UtcMs;

/// One aggregated trade as pushed (`aggTrade`): fills of one taker side at one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggTrade {
    /// Whose trade.
    pub symbol: SymbolId,
    /// Aggregate id (`a`): per symbol, rising by one; a jump is a hole.
    pub id: i64,
    /// Price (`p`), quote per base, > 0.
    pub price: Fixed,
    /// Base quantity (`q`), > 0.
    pub qty: Fixed,
    /// First raw trade id inside (`f`).
    pub first_id: i64,
    /// Last raw trade id inside (`l`), not before the first.
    pub last_id: i64,
    /// Time of the first fill (`T`).
    pub trade_time: UtcMs,
    /// When the venue built the event (`E`).
    pub event_time: UtcMs,
    /// True when the aggressor sold (`m`).
    pub buyer_is_maker: bool,
    /// Decimals of the price's text, to print it as the venue does.
    pub price_decimals: u8,
    /// Decimals of the quantity's text.
    pub qty_decimals: u8,
}

/// One mark price as pushed (`markPriceUpdate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkPrice {
    /// Whose price.
    pub symbol: SymbolId,
    /// Mark price (`p`), > 0.
    pub price: Fixed,
    /// Index price (`i`), > 0.
    pub index_price: Fixed,
    /// Estimated settle price (`P`), if given; useful in the last hour before a settlement only.
    pub settle_price: Option<Fixed>,
    /// Funding rate (`r`) as a fraction, may be negative; `None` for contracts without funding (`""`).
    pub funding_rate: Option<Fixed>,
    /// Next funding (`T`); `None` for contracts without funding (0).
    pub next_funding: Option<UtcMs>,
    /// When the venue built the event (`E`).
    pub event_time: UtcMs,
}

/// One push of a candle (`kline`): the whole candle as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kline {
    /// Whose candle.
    pub symbol: SymbolId,
    /// Its length.
    pub interval: Interval,
    /// Open time (`t`): the candle's key.
    pub open_time: UtcMs,
    /// Close time (`T`): the last millisecond inside.
    pub close_time: UtcMs,
    /// First price (`o`).
    pub open: Fixed,
    /// Highest price (`h`).
    pub high: Fixed,
    /// Lowest price (`l`).
    pub low: Fixed,
    /// Last price (`c`).
    pub close: Fixed,
    /// Base volume (`v`).
    pub volume: Wide,
    /// Quote volume (`q`).
    pub quote_volume: Wide,
    /// Base volume of taker buys (`V`).
    pub taker_buy_volume: Wide,
    /// Quote volume of taker buys (`Q`).
    pub taker_buy_quote_volume: Wide,
    /// Raw trades inside (`n`).
    pub trades: i64,
    /// First raw trade id (`f`), -1 in an empty candle.
    pub first_id: i64,
    /// Last raw trade id (`L`), -1 in an empty candle.
    pub last_id: i64,
    /// True in the one closing push (`x`).
    pub closed: bool,
    /// When the venue built the event (`E`).
    pub event_time: UtcMs,
    /// Decimals of the close price's text.
    pub price_decimals: u8,
    /// Decimals of the base volume's text.
    pub qty_decimals: u8,
}

/// One event of a market stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// `aggTrade`
    Trade(AggTrade),
    /// `markPriceUpdate`
    Mark(MarkPrice),
    /// `kline`
    Kline(Kline),
}

impl Frame {
    /// Whose event.
    pub fn symbol(&self) -> SymbolId {
        match self {
            Self::Trade(trade) => trade.symbol,
            Self::Mark(mark) => mark.symbol,
            Self::Kline(kline) => kline.symbol,
        }
    }

    /// Of which kind of stream.
    pub fn kind(&self) -> StreamKind {
        match self {
            Self::Trade(_) => StreamKind::AggTrade,
            Self::Mark(_) => StreamKind::MarkPrice,
            Self::Kline(kline) => StreamKind::Kline(kline.interval),
        }
    }

    /// When the venue built the event.
    pub fn event_time(&self) -> UtcMs {
        match self {
            Self::Trade(trade) => trade.event_time,
            Self::Mark(mark) => mark.event_time,
            Self::Kline(kline) => kline.event_time,
        }
    }
}
