//! The yardstick on its own: `floor --port 4000 --redis 6379 --coalesce`.

use std::process::ExitCode;

use clap::Parser as _;
use signal_benches::floor;

fn main() -> ExitCode {
    let options = floor::Options::parse();
    match floor::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}
