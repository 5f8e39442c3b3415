//! `binance-edge`: one process between Binance's market streams and those who must trust what it says.
//!
//! # The map
//!
//! ```text
//! words ─► shell ─► engine ─► market ─► net
//!   └────► sim ───────┘          └────► wire      (time, fixed, ring, status, note, config below)
//! ```
//!
//! - [`engine`] is the process without its shell: a pure state machine that is told what happened and when. Read its
//!   module documentation first: the whole program is the loop that stands there.
//! - [`net`] is one connection without a socket: TLS, upgrade and WebSocket over in-memory buffers, and a life cycle in
//!   which every state has a deadline.
//! - [`market`] knows which streams are wanted, proves each by its own data, and keeps trades, candles and mark prices.
//! - [`wire`] reads what the venue writes. Pure functions.
//! - [`shell`] is the only impure code: the loop, sockets, threads, clocks, signals, log and HTTP.
//! - [`sim`] is the other side: an exchange with rules and books of its own, behind real sockets or in a virtual world.
//! - [`words`] are the words of the command line.
//!
//! # What is deliberately absent
//!
//! There is no async runtime, no lock and no channel between a frame and its ring; no trait for clocks or sockets,
//! because nothing below the shell needs one; no mock of our own code in any test; no floating-point number that holds
//! money.
//!
//! # As a library
//!
//! Frames into books, without any connection:
//!
//! ```
//! use binance_edge::config::TapeLimits;
//! use binance_edge::market::{Market, tape::Source};
//! use binance_edge::time::Now;
//! use binance_edge::wire::market::{Decoded, Decoder};
//!
//! let mut market = Market::learning(TapeLimits::default());
//! market.learn("BTCUSDT");
//! let text = r#"{"e":"aggTrade","E":1785000000224,"a":7,"s":"BTCUSDT","p":"64123.40","q":"0.215",
//!                "f":70,"l":74,"T":1785000000071,"m":false}"#;
//! let Ok(Decoded::Frame(frame)) = Decoder::default().decode(text, market.symbols()) else { panic!("refused") };
//! market.apply(&frame, Source::default(), Now::default());
//! let (_, book) = market.books().next().unwrap();
//! assert_eq!(book.tape.as_ref().unwrap().ring().last().unwrap().price.to_string(), "64123.4");
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod engine;
pub mod fixed;
pub mod market;
pub mod net;
pub mod note;
pub mod recording;
pub mod replay;
pub mod ring;
pub mod shell;
pub mod sim;
pub mod status;
pub mod time;
pub mod wire;
pub mod words;
