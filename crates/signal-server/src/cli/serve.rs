//! `signal serve`: an edge, until SIGTERM or SIGINT; SIGHUP has it read its files anew.

use signal_server::config::Values;
use signal_server::{Config, Signal, SignalBuilder, SignalError};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;
use tracing::{error, info};

use super::Failure;

pub(crate) async fn run(values: &Values) -> Result<(), Failure> {
    let config = Config::from_values(values)?;
    let stop = StopSignals::listen()?;
    let edge = bind(Signal::builder().config(config)).await?;
    run_until_stopped(edge, stop).await?;
    info!("stopped");
    Ok(())
}

/// Runs until SIGTERM or SIGINT, then drains; a second one closes what is left at once.
pub(crate) async fn run_until_stopped(edge: Signal, mut stop: StopSignals) -> Result<(), Failure> {
    let (asked, _) = watch::channel(0);
    let times = |count| {
        let mut asked = asked.subscribe();
        async move {
            let _ = asked.wait_for(|times| *times >= count).await;
        }
    };
    let handle = edge.handle();
    let count = async {
        loop {
            match stop.next().await {
                Asked::Stop => asked.send_modify(|times| *times += 1),
                Asked::Reload => match handle.reload() {
                    Ok(()) => info!("files are read anew"),
                    Err(error) => error!(%error, "files are no good; what was read before is kept"),
                },
            }
        }
    };
    tokio::select! {
        outcome = edge.run(times(1)) => outcome.map_err(Failure::other),
        () = times(2) => {
            info!("stopping at once");
            Ok(())
        }
        never = count => never,
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

/// SIGTERM and SIGINT, and SIGHUP. Listened for before the edge says that it is there, so that none of
/// them ends the process without a drain.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

/// What a signal asks for.
enum Asked {
    Stop,
    Reload,
}

// === impl StopSignals ===

impl StopSignals {
    /// Takes the signals over from the system.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| unix::signal(kind).map_err(Failure::other);
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// What the next one asks for.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}
