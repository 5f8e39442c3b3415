//! `binance-edge`: one process between Binance's market streams and those who must trust what it says.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod config;
pub mod engine;
pub mod fixed;
pub mod market;
pub mod net;
pub mod note;
pub mod recording;
pub mod ring;
pub mod shell;
pub mod sim;
pub mod status;
pub mod time;
pub mod wire;
pub mod words;
