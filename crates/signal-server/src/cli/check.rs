//! `signal check`: are the settings allowed, is Redis there, what is in effect?

use std::io::Write as _;

use signal_core::redis::RedisMode;
use signal_emitter::{EdgeCheck, Emitter, EmitterConfig};
use signal_server::Config;
use signal_server::config::{SETTINGS, Values};

use super::Failure;

pub(crate) async fn run(values: &Values) -> Result<(), Failure> {
    let config = Config::from_values(values)?;
    let mut out = std::io::stdout().lock();
    for setting in SETTINGS {
        let value = match (values.get(setting.name), setting.secret) {
            (Some(_), true) => "***",
            (Some(value), false) => value,
            (None, _) if setting.default.is_empty() => continue,
            (None, _) => setting.default,
        };
        let origin = if values.get(setting.name).is_some() { "" } else { "  (default)" };
        writeln!(out, "{:<40} {value}{origin}", setting.name).map_err(Failure::other)?;
    }
    if matches!(config.redis.mode, RedisMode::None) {
        writeln!(out, "ok: in-process bus, one edge").map_err(Failure::other)?;
        return Ok(());
    }
    let mut config = EmitterConfig::new(config.redis);
    // It is run before there is an edge.
    config.edge_check = EdgeCheck::Off;
    let emitter = Emitter::connect(config).await.map_err(Failure::usage)?;
    let _ = emitter.shutdown().await;
    writeln!(out, "ok: redis answers").map_err(Failure::other)
}
