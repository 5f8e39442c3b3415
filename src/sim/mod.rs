//! The other side of the wire: a strict, seeded exchange that keeps its own books.
//!
//! [`exchange::Exchange`] is a pure state machine: it is told what clients sent and what time it is, and asked what to
//! send. It shares the vocabulary of [`crate::wire`] (names, intervals, numbers) and none of its readers or writers, so
//! that a misunderstanding on one side cannot agree with itself on the other. [`peer`] and [`hub`] are its connections
//! without sockets, [`serve`] the same behind real ones.

pub mod exchange;
pub mod hub;
pub mod peer;
pub mod serve;
pub mod world;

pub use exchange::venue;
