//! The words of the command line; what each of them does is in `binance_edge::words`.

use binance_edge::words;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A low-latency edge process for Binance market data
#[derive(Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done as asked, 1 it ran and something failed, 2 usage or configuration.")]
struct Line {
    #[command(subcommand)]
    word: Word,
}

/// In the order in which they are listed.
#[derive(Subcommand)]
enum Word {
    /// Run the edge process
    Run(words::run::RunArgs),
    /// Run the same process against the built-in exchange: no network, no keys, no files
    Demo(words::demo::DemoArgs),
    /// Try every endpoint once, stage by stage, and say whose fault it is
    Check(words::check::CheckArgs),
    /// Run the built-in exchange alone, for any other client
    Exchange(words::exchange::ExchangeArgs),
    /// Put recorded frames through the same parser and tape, and show what they hold
    Replay(words::replay::ReplayArgs),
    /// Show what a running process says of itself
    Status(words::status::StatusArgs),
    /// Show the effective configuration, secrets masked
    Config(words::config::ConfigArgs),
    /// Run the whole system in its simulated world; exit 1 on a violation
    Simulate(words::simulate::SimulateArgs),
}

fn main() -> ExitCode {
    match Line::parse().word {
        Word::Run(args) => words::run::run(args),
        Word::Demo(args) => words::demo::run(args),
        Word::Check(args) => words::check::run(args),
        Word::Exchange(args) => words::exchange::run(args),
        Word::Replay(args) => words::replay::run(args),
        Word::Status(args) => words::status::run(args),
        Word::Config(args) => words::config::run(args),
        Word::Simulate(args) => words::simulate::run(args),
    }
}
