//! A producer on the emitter, as fast as it goes: `emitter-load REDIS_PORT MESSAGES UNDER_WAY`.
//!
//! Prints the publishes a second. One thread; so many tasks send one message after the other, as the
//! requests of a service do.

use std::process::ExitCode;

use signal_benches::clock::Clock;
use signal_emitter::redis::RedisSettings;
use signal_emitter::{EdgeCheck, Emitter, EmitterConfig, EmitterError};
use tokio::task::JoinSet;

fn main() -> ExitCode {
    let arguments: Vec<u32> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let &[port, messages, under_way] = &arguments[..] else {
        eprintln!("usage: emitter-load REDIS_PORT MESSAGES UNDER_WAY");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let load = async || run(port, messages, under_way).await;
    match runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(load()).map_err(|error| error.to_string()))
    {
        Ok(rate) => {
            say(&format!("{rate:.0}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("emitter-load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(port: u32, messages: u32, under_way: u32) -> Result<f64, EmitterError> {
    let port = u16::try_from(port).unwrap_or_default();
    let mut config = EmitterConfig::new(RedisSettings::single("127.0.0.1", port));
    config.edge_check = EdgeCheck::Off;
    let emitter = Emitter::connect(config).await?;
    let data = format!("{{\"pad\":\"{}\"}}", "x".repeat(246));
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    for task in 0..under_way {
        let (emitter, data) = (emitter.clone(), data.clone());
        // What does not divide evenly goes to the first ones.
        let own = messages / under_way + u32::from(task < messages % under_way);
        tasks.spawn(async move {
            for _ in 0..own {
                emitter.to_room("bench").event("bench").json(&data).send().await?;
            }
            Ok::<_, EmitterError>(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("it does not panic")?;
    }
    let seconds = clock.elapsed().as_secs_f64();
    emitter.shutdown().await?;
    Ok(f64::from(messages) / seconds)
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}
