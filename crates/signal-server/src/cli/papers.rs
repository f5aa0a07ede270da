//! `signal completions` and `signal man`: what packages install beside the binary, made from the same
//! description of the command line.

use clap::ArgMatches;
use clap_complete::Shell;

use super::{Failure, arguments};

pub(crate) fn completions(matches: &ArgMatches) {
    let shell = matches.get_one::<Shell>("shell").copied().expect("it is required");
    clap_complete::generate(shell, &mut arguments(), "signal", &mut std::io::stdout());
}

pub(crate) fn manual() -> Result<(), Failure> {
    clap_mangen::Man::new(arguments()).render(&mut std::io::stdout()).map_err(Failure::other)
}
