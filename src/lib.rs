//! `binance-edge`: one process between Binance's market streams and those who must trust what it says.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod engine;
pub mod fixed;
pub mod ring;
pub mod shell;
pub mod sim;
pub mod status;
pub mod time;
pub mod wire;
