//! What the market does: streams that are proved by their data, and what they carry, per symbol, in rings.

pub mod candles;
pub mod feed;
pub mod layout;
pub mod tape;

use crate::config::TapeLimits;
use crate::time::{Instant, Now, Span};
use crate::wire::rest::PastTrade;
use crate::wire::{Frame, Interval, Kline, MarkPrice, StreamKind, SymbolId, Symbols};
use candles::Candles;
use std::cmp::Ordering;
use tape::{Source, Tape, TapeEvent};

/// A mark price that is the newest by its own time for so long, while others come, is wrong about its time.
const NEWEST_FOR: Span = Span::from_secs(60);

/// Everything held about every symbol.
pub struct Market {
    symbols: Symbols,
    limits: TapeLimits,
    books: Vec<Book>,
}

/// What is held about one symbol.
#[derive(Default)]
pub struct Book {
    /// Somebody wants it, or it was met in a recording.
    wanted: bool,
    /// The trade tape, if trades are subscribed to.
    pub tape: Option<Tape>,
    /// The newest mark price and when it arrived.
    pub mark: Option<(MarkPrice, Instant)>,
    /// One ring of candles per interval.
    pub candles: Vec<Candles>,
}

impl Book {
    /// The ring of candles of this length.
    pub fn candles(&self, interval: Interval) -> Option<&Candles> {
        self.candles.iter().find(|candles| candles.interval() == interval)
    }
}

impl Market {
    /// Rings for each symbol and kind of stream. `limits.trades` × 64 bytes and, per interval, `limits.candles` × 224
    /// bytes a symbol: 1.1 MiB at the defaults with one interval, touched as it fills.
    pub fn new(symbols: Symbols, kinds: &[StreamKind], limits: TapeLimits) -> Self {
        let books = (0..symbols.len()).map(|_| Book::new(kinds, limits)).collect();
        Self { symbols, limits, books }
    }

    /// A market that takes in whatever symbols [`learn`](Self::learn) names, for recordings.
    pub fn learning(limits: TapeLimits) -> Self {
        Self { symbols: Symbols::default(), limits, books: Vec::new() }
    }

    /// Takes in a symbol; rings are made when its first frames come. `None` if the table of symbols is full.
    pub fn learn(&mut self, name: &str) -> Option<SymbolId> {
        let id = self.symbols.intern(name)?;
        if id.index() == self.books.len() {
            self.books.push(Book { wanted: true, ..Book::default() });
        }
        Some(id)
    }

    /// Takes in a symbol that is wanted, with rings for these kinds. `None` if the table of symbols is full.
    pub fn want(&mut self, name: &str, kinds: &[StreamKind]) -> Option<SymbolId> {
        let id = self.symbols.intern(name)?;
        if id.index() == self.books.len() {
            self.books.push(Book::default());
        }
        let book = &mut self.books[id.index()];
        if !book.wanted {
            *book = Book::new(kinds, self.limits);
        }
        Some(id)
    }

    /// Lets go of what is held about a symbol that is wanted no more.
    pub fn let_go(&mut self, symbol: SymbolId) {
        self.books[symbol.index()] = Book::default();
    }

    /// Takes in trades that were fetched.
    pub fn fill(&mut self, trades: &[PastTrade], now: Now) -> usize {
        let mut took = 0;
        for trade in trades {
            let book = &mut self.books[trade.symbol.index()];
            let tape = book.tape.as_mut().filter(|_| book.wanted);
            took += usize::from(tape.is_some_and(|tape| tape.fill(trade, now).took()));
        }
        took
    }

    /// Takes in candles that were fetched, oldest first. All but the newest are closed: there is a later one. What is
    /// pushed later replaces them whatever our clock says.
    pub fn take_fetched_candles(&mut self, klines: &[Kline]) {
        for (at, kline) in klines.iter().enumerate() {
            let book = &mut self.books[kline.symbol.index()];
            let Some(candles) = book.candles.iter_mut().find(|candles| candles.interval() == kline.interval) else {
                continue;
            };
            let closed = at + 1 < klines.len();
            let held = candles.at(kline.open_time).map(|candle| candle.kline.event_time);
            candles.push(&Kline { closed, event_time: held.unwrap_or(kline.open_time), ..*kline });
        }
    }

    /// Takes in a mark price that was fetched.
    pub fn take_fetched_mark(&mut self, mark: &MarkPrice, now: Now) {
        let book = &mut self.books[mark.symbol.index()];
        if book.mark.as_ref().is_none_or(|(newest, _)| newest.event_time <= mark.event_time) {
            book.mark = Some((*mark, now.mono));
        }
    }

    /// The table of symbols.
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// What is held about a symbol.
    pub fn book(&self, symbol: SymbolId) -> &Book {
        &self.books[symbol.index()]
    }

    /// All symbols that are wanted, with what is held about them.
    pub fn books(&self) -> impl Iterator<Item = (&str, &Book)> {
        let all = self.symbols.iter().map(|(id, name)| (name, &self.books[id.index()]));
        all.filter(|(_, book)| book.wanted)
    }

    /// Takes in one event. Allocates nothing once a symbol's rings exist.
    pub fn apply(&mut self, frame: &Frame, source: Source, now: Now) -> Applied {
        let book = &mut self.books[frame.symbol().index()];
        match frame {
            Frame::Trade(trade) => {
                let tape = book.tape.get_or_insert_with(|| Tape::new(self.limits.trades));
                Applied::Trade(tape.push(trade, source, now))
            }
            Frame::Mark(mark) => {
                // Two legs, or a burst after a freeze: an older price never replaces a newer one, and a copy is no news.
                let news = |(newest, at): &(MarkPrice, Instant)| match newest.event_time.cmp(&mark.event_time) {
                    Ordering::Less => true,
                    Ordering::Equal => newest != mark,
                    Ordering::Greater => now.mono.since(*at) > NEWEST_FOR,
                };
                if book.mark.as_ref().is_none_or(news) {
                    book.mark = Some((*mark, now.mono));
                }
                Applied::Mark
            }
            Frame::Kline(kline) => {
                let at = match book.candles.iter().position(|c| c.interval() == kline.interval) {
                    Some(at) => at,
                    None => {
                        book.candles.push(Candles::new(kline.interval, self.limits.candles));
                        book.candles.len() - 1
                    }
                };
                if source == Source::OneOfSeveral {
                    book.candles[at].push_one_of_several(kline);
                } else {
                    book.candles[at].push(kline);
                }
                Applied::Candle
            }
        }
    }
}

impl Book {
    fn new(kinds: &[StreamKind], limits: TapeLimits) -> Self {
        let mut book = Self { wanted: true, ..Self::default() };
        for kind in kinds {
            match kind {
                StreamKind::AggTrade => book.tape = Some(Tape::new(limits.trades)),
                StreamKind::MarkPrice => {}
                StreamKind::Kline(interval) => book.candles.push(Candles::new(*interval, limits.candles)),
            }
        }
        book
    }
}

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// To the tape.
    Trade(TapeEvent),
    /// To the mark price.
    Mark,
    /// To a candle.
    Candle,
}
