//! Markets, symbols, intervals and stream names: the vocabulary both the process and the simulated exchange use.

use std::fmt;

/// Which market of the venue: what is listed, and how it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Market {
    /// USD-M futures.
    Usdm,
    /// Spot; market data only.
    Spot,
}

/// A symbol's place in its [`Symbols`] table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolId(pub u16);

impl SymbolId {
    /// As an index into tables kept by symbol.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Most symbols a table holds; the venue lists about 900.
pub const SYMBOLS_MAX: usize = 8192;
/// Longest symbol in bytes; the venue's longest is 17 characters, some of three bytes each.
pub const SYMBOL_BYTES_MAX: usize = 64;

/// The interned symbols: name to id by a small hash table over bytes, id to name by index.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    names: Vec<Box<str>>,
    /// Open addressing; 0 is empty, otherwise id + 1. A power of two, at most half full.
    slots: Vec<u16>,
}

impl Symbols {
    /// The table of these names, in their order; a repeated name gets no second id.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut table = Self::default();
        for name in names {
            table.intern(name);
        }
        table
    }

    /// The id of `name`, new if it has none yet. `None` if the table is full or the name is empty or too long.
    pub fn intern(&mut self, name: &str) -> Option<SymbolId> {
        if let Some(id) = self.find(name.as_bytes()) {
            return Some(id);
        }
        if self.names.len() >= SYMBOLS_MAX || name.is_empty() || name.len() > SYMBOL_BYTES_MAX {
            return None;
        }
        self.names.push(name.into());
        if self.names.len() * 2 > self.slots.len() {
            self.rehash();
        } else {
            self.place(self.names.len() - 1);
        }
        Some(SymbolId((self.names.len() - 1) as u16))
    }

    fn rehash(&mut self) {
        self.slots = vec![0; (self.names.len() * 4).next_power_of_two().max(16)];
        for index in 0..self.names.len() {
            self.place(index);
        }
    }

    fn place(&mut self, index: usize) {
        let mask = self.slots.len() - 1;
        let mut slot = hash(self.names[index].as_bytes()) as usize & mask;
        while self.slots[slot] != 0 {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = index as u16 + 1;
    }

    /// The id of a name, if it is in the table.
    pub fn find(&self, name: &[u8]) -> Option<SymbolId> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash(name) as usize & mask;
        loop {
            let entry = self.slots[slot];
            if entry == 0 {
                return None;
            }
            let index = usize::from(entry - 1);
            if self.names[index].as_bytes() == name {
                return Some(SymbolId(index as u16));
            }
            slot = (slot + 1) & mask;
        }
    }

    /// The name behind an id of this table.
    pub fn name(&self, id: SymbolId) -> &str {
        &self.names[id.index()]
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True without any symbol.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All ids with their names, in order.
    pub fn iter(&self) -> impl Iterator<Item = (SymbolId, &str)> {
        self.names.iter().enumerate().map(|(index, name)| (SymbolId(index as u16), &**name))
    }
}

/// Names come from the configuration, so nobody can choose them to collide: short and quick is enough. Eight bytes at
/// a time, the last eight overlapping those before.
fn hash(name: &[u8]) -> u32 {
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let step = |hash: u64, bytes: &[u8; 8]| (hash ^ u64::from_le_bytes(*bytes)).wrapping_mul(MIX).rotate_left(29);
    let mut hash = name.len() as u64;
    match name.last_chunk::<8>() {
        Some(last) => {
            let (chunks, _) = name[..name.len() - 1].as_chunks::<8>();
            hash = step(chunks.iter().fold(hash, step), last);
        }
        None => {
            let mut bytes = [0; 8];
            bytes[..name.len()].copy_from_slice(name);
            hash = step(hash, &bytes);
        }
    }
    (hash.wrapping_mul(MIX) >> 32) as u32
}

/// The length of a candle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    /// `1s` (spot only)
    S1,
    /// `1m`
    M1,
    /// `3m`
    M3,
    /// `5m`
    M5,
    /// `15m`
    M15,
    /// `30m`
    M30,
    /// `1h`
    H1,
    /// `2h`
    H2,
    /// `4h`
    H4,
    /// `6h`
    H6,
    /// `8h`
    H8,
    /// `12h`
    H12,
    /// `1d`
    D1,
    /// `3d`
    D3,
    /// `1w`
    W1,
    /// `1M`, a calendar month
    Mo1,
}

impl Interval {
    /// All of them, shortest first.
    pub const ALL: [Self; 16] = [
        Self::S1,
        Self::M1,
        Self::M3,
        Self::M5,
        Self::M15,
        Self::M30,
        Self::H1,
        Self::H2,
        Self::H4,
        Self::H6,
        Self::H8,
        Self::H12,
        Self::D1,
        Self::D3,
        Self::W1,
        Self::Mo1,
    ];

    /// The venue's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::S1 => "1s",
            Self::M1 => "1m",
            Self::M3 => "3m",
            Self::M5 => "5m",
            Self::M15 => "15m",
            Self::M30 => "30m",
            Self::H1 => "1h",
            Self::H2 => "2h",
            Self::H4 => "4h",
            Self::H6 => "6h",
            Self::H8 => "8h",
            Self::H12 => "12h",
            Self::D1 => "1d",
            Self::D3 => "3d",
            Self::W1 => "1w",
            Self::Mo1 => "1M",
        }
    }

    /// The interval of the venue's name, `None` if there is none.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|interval| interval.as_str().as_bytes() == name)
    }

    /// Length in milliseconds; for a calendar month, its shortest (28 days).
    pub const fn millis(self) -> i64 {
        const MINUTE: i64 = 60_000;
        const DAY: i64 = 1440 * MINUTE;
        match self {
            Self::S1 => 1_000,
            Self::M1 => MINUTE,
            Self::M3 => 3 * MINUTE,
            Self::M5 => 5 * MINUTE,
            Self::M15 => 15 * MINUTE,
            Self::M30 => 30 * MINUTE,
            Self::H1 => 60 * MINUTE,
            Self::H2 => 120 * MINUTE,
            Self::H4 => 240 * MINUTE,
            Self::H6 => 360 * MINUTE,
            Self::H8 => 480 * MINUTE,
            Self::H12 => 720 * MINUTE,
            Self::D1 => DAY,
            Self::D3 => 3 * DAY,
            Self::W1 => 7 * DAY,
            Self::Mo1 => 28 * DAY,
        }
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamKind {
    /// `<symbol>@aggTrade`
    AggTrade,
    /// `<symbol>@markPrice@1s`
    MarkPrice,
    /// `<symbol>@kline_<interval>`
    Kline(Interval),
}

impl StreamKind {
    /// The stream's name on the wire: the symbol in lower case, then the kind.
    pub fn stream_name(self, symbol: &str) -> String {
        let symbol = symbol.to_lowercase();
        match self {
            Self::AggTrade => format!("{symbol}@aggTrade"),
            Self::MarkPrice => format!("{symbol}@markPrice@1s"),
            Self::Kline(interval) => format!("{symbol}@kline_{interval}"),
        }
    }
}

/// A name as a part of a URL: names may hold letters outside ASCII, which stand there as percent-encoded UTF-8.
pub fn url_encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => out.push(char::from(byte)),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_by_bytes_ascii_or_not() {
        let mut symbols = Symbols::new(["BTCUSDT", "币安人生USDT", "BTCUSDT"]);
        assert_eq!(symbols.len(), 2);
        assert_eq!(symbols.find("币安人生USDT".as_bytes()), Some(SymbolId(1)));
        assert_eq!(symbols.find(b"btcusdt"), None);
        for n in 0..1000 {
            symbols.intern(&format!("S{n}USDT"));
        }
        assert_eq!(symbols.find(b"S999USDT").map(|id| symbols.name(id)), Some("S999USDT"));
        assert_eq!(symbols.intern(&"X".repeat(65)), None);
    }

    #[test]
    fn stream_names_are_lower_case_up_to_the_kind() {
        assert_eq!(StreamKind::AggTrade.stream_name("BTCUSDT"), "btcusdt@aggTrade");
        assert_eq!(StreamKind::MarkPrice.stream_name("BTCUSDT"), "btcusdt@markPrice@1s");
        assert_eq!(url_encoded("币x@aggTrade/&"), "%E5%B8%81x@aggTrade%2F%26");
        assert_eq!(StreamKind::Kline(Interval::Mo1).stream_name("币安人生USDT"), "币安人生usdt@kline_1M");
    }
}
