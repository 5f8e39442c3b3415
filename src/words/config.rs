//! `config`: the effective configuration, defaults filled in and secrets masked.

use super::{USAGE, complain, print};
use std::path::PathBuf;
use std::process::ExitCode;

/// What to show.
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Prints it, or everything that is wrong with it.
pub fn run(args: ConfigArgs) -> ExitCode {
    match crate::config::load(&args.config) {
        Ok(config) => {
            config.warnings.iter().for_each(complain);
            print(&config.to_toml())
        }
        Err(errors) => {
            complain(errors);
            ExitCode::from(USAGE)
        }
    }
}
