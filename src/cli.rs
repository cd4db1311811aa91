//! The commands and their help.

pub mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The app that the demo and the tests put standin in front of.
    #[command(hide = true)]
    ToyShop(demo::shop::ShopArgs),
}

/// Reads the arguments and does what they ask.
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::ToyShop(args) => demo::shop::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("standin: {error}");
            ExitCode::FAILURE
        }
    }
}
