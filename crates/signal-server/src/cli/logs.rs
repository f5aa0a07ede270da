//! Logs: to standard error, as text on a terminal, else as JSON lines.

use std::io::IsTerminal as _;

use signal_server::config::{ConfigError, Values};
use tracing_subscriber::EnvFilter;

/// Starts logging as the settings say; tools that print results log only what is wrong.
pub(crate) fn start(values: &Values, command: &str) -> Result<(), ConfigError> {
    let default = if matches!(command, "serve" | "demo") { "info" } else { "error" };
    let directives = values.get("SIGNAL_LOG").unwrap_or(default);
    let filter = EnvFilter::builder().parse(directives).map_err(|_| ConfigError::Value {
        name: "SIGNAL_LOG",
        value: directives.to_owned(),
        allowed: "a filter, like info or signal_server=debug".to_owned(),
    })?;
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = match values.get("SIGNAL_LOG_FORMAT") {
        None => is_terminal,
        Some("text") => true,
        Some("json") => false,
        Some(value) => {
            return Err(ConfigError::Value {
                name: "SIGNAL_LOG_FORMAT",
                value: value.to_owned(),
                allowed: "text or json".to_owned(),
            });
        }
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal);
    if is_text {
        logs.init();
    } else {
        logs.json().init();
    }
    Ok(())
}
