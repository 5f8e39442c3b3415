//! The only impure code: clocks, sockets, threads, files and signals around the pure engine.
//!
//! One thread runs the loop. Whatever may block has a thread of its own and is reached through bounded queues that the
//! loop only ever tries: a full queue is an answer, never a wait.
#![allow(clippy::disallowed_methods, reason = "the shell reads clocks and owns threads")]

pub mod clock;
pub mod http;
pub mod logger;
pub mod metrics;
pub mod pin;
pub mod printer;
pub mod reactor;
pub mod reload;
pub mod rest;
pub mod run;
#[cfg(test)]
mod sample;
pub mod signals;
pub mod watchdog;
pub mod workers;
