//! The binary `signal`: an edge by configuration, and the tools around it.
//!
//! A thin user of the library. Bad configuration exits 64 with one sentence; nothing else calls exit.

mod cli;

use std::process::ExitCode;

use cli::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("signal: {failure}");
            failure.exit_code()
        }
    }
}

/// Arguments, settings, logs, runtime, command.
fn run() -> Result<(), Failure> {
    let Some(arguments) = cli::parse()? else { return Ok(()) };
    let (name, arguments) = arguments.subcommand().unwrap_or(("serve", &arguments));
    let values = cli::values(arguments)?;
    cli::logs::start(&values, name)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::other)?;
    let outcome = runtime.block_on(async {
        match name {
            "demo" => Box::pin(cli::demo::run(&values)).await,
            "emit" => cli::emit::run(arguments, &values).await,
            "tail" => cli::tail::run(arguments).await,
            "token" => cli::token::run(arguments, &values),
            "check" => Box::pin(cli::check::run(&values)).await,
            "completions" => {
                cli::papers::completions(arguments);
                Ok(())
            }
            "man" => cli::papers::manual(),
            _ => cli::serve::run(&values).await,
        }
    });
    cli::logs::finish();
    outcome
}
