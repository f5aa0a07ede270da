//! `signal tail`: a client that prints what arrives, for as long as its connection lasts.

use std::io::Write as _;

use clap::ArgMatches;
use serde_json::json;
use serde_json::value::RawValue;
use signal_client::{Config, Event, Loss};

use super::Failure;

pub(crate) async fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let mut credentials = json!({});
    for (argument, member) in [("token", "token"), ("user", "userId")] {
        if let Some(value) = text(argument) {
            credentials[member] = json!(value);
        }
    }
    let url = text("url").expect("it has a default");
    let mut config = Config::new(url).map_err(Failure::usage)?;
    if let Some(path) = text("ca-file") {
        config = config.authorities(path).map_err(Failure::usage)?;
    }
    let config = config.credentials(credentials).encrypted().once();
    let rooms = arguments.get_many::<String>("room").into_iter().flatten();
    let config = rooms.fold(config, Config::room);
    let (_client, mut events) = signal_client::connect(config);
    while let Some(event) = events.next().await {
        match event {
            Event::Online(connected) => print("connected", connected.get())?,
            Event::Message(message) => {
                print(&message.event, message.data.as_deref().map_or("", RawValue::get))?;
            }
            Event::Resync { rooms, reason } => {
                print("resync", &json!({ "rooms": rooms, "reason": reason }).to_string())?;
            }
            Event::Denied(rooms) => print("denied", &json!({ "rooms": rooms }).to_string())?,
            Event::Error { code, message } => {
                print("error", &json!({ "code": code, "message": message }).to_string())?;
            }
            Event::Closed(loss) => return Err(Failure::unavailable(loss)),
            _ => {}
        }
    }
    Err(Failure::unavailable(Loss::Application))
}

/// One line per message: when, what, and the data as it came.
fn print(event: &str, data: &str) -> Result<(), Failure> {
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{time}  {event:<20} {data}").map_err(Failure::other)
}
