//! The other side of the wire: a strict, seeded exchange that keeps its own books.

pub mod hub;
pub mod peer;
pub mod serve;
pub mod venue;
