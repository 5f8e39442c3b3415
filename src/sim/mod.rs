//! The other side of the wire: a strict, seeded exchange that keeps its own books.
//!
//! [`exchange::Exchange`] is a pure state machine: it is told what clients sent and what time it is, and asked what to
//! send. It shares the vocabulary of [`crate::wire`] (names, intervals, numbers) and none of its readers or writers, so
//! that a misunderstanding on one side cannot agree with itself on the other. [`peer`] and [`hub`] are its connections
//! without sockets, [`serve`] the same behind real ones.

pub mod books;
pub mod candles;
pub mod control;
pub mod exchange;
pub mod faults;
pub mod fields;
pub mod hub;
pub mod info;
pub mod ledger;
pub mod number;
pub mod peer;
pub mod playback;
pub mod push;
pub mod request;
pub mod rest;
pub mod serve;
pub mod setup;
pub mod text;
pub mod tides;
pub mod venue;
pub mod world;
