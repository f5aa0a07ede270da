//! `signal serve`: an edge, until SIGTERM or SIGINT.

use signal_server::config::Values;
use signal_server::{Config, Signal, SignalBuilder, SignalError};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use super::Failure;

pub(crate) async fn run(values: &Values) -> Result<(), Failure> {
    let config = Config::from_values(values)?;
    let edge = bind(Signal::builder().config(config)).await?;
    run_until_stopped(edge).await?;
    info!("stopped");
    Ok(())
}

/// Runs until SIGTERM or SIGINT, then drains; a second one closes what is left at once.
pub(crate) async fn run_until_stopped(edge: Signal) -> Result<(), Failure> {
    let (stopping, mut stopped_once) = watch::channel(false);
    let second = async {
        let _ = stopped_once.wait_for(|stopping| *stopping).await;
        stop().await;
    };
    let first = async {
        stop().await;
        let _ = stopping.send(true);
    };
    tokio::select! {
        outcome = edge.run(first) => outcome.map_err(Failure::other),
        () = second => {
            info!("stopping at once");
            Ok(())
        }
    }
}

/// Binds, and says where.
pub(crate) async fn bind(builder: SignalBuilder) -> Result<Signal, Failure> {
    let config = builder.settings();
    let (workers, bus, auth) = (config.workers, config.bus_name(), config.auth_name());
    let edge = builder.bind().await.map_err(|error| match error {
        SignalError::Config(error) => Failure::usage(error),
        error => Failure::other(error),
    })?;
    info!(
        address = %edge.address(),
        admin = edge.admin_address().map(tracing::field::display),
        instance = edge.handle().instance(),
        workers,
        bus,
        auth,
        version = env!("CARGO_PKG_VERSION"),
        "listening"
    );
    Ok(edge)
}

/// Ready at the first SIGTERM or SIGINT.
pub(crate) async fn stop() {
    let handlers = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    match handlers {
        Ok((mut terminate, mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        // Without handlers the signals end the process by themselves.
        Err(_) => std::future::pending().await,
    }
}
