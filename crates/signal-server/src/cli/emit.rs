//! `signal emit`: one event, on Redis with the emitter, or through an edge.

use std::io::{Read as _, Write as _};

use clap::ArgMatches;
use hyper::Uri;
use serde_json::json;
use signal_core::redis::RedisSettings;
use signal_emitter::{EdgeCheck, Emitter, EmitterConfig, EmitterError};
use signal_server::config::Values;

use super::{Failure, publish};

pub(crate) async fn run(arguments: &ArgMatches, values: &Values) -> Result<(), Failure> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let data = text("data").map(data).transpose()?;
    let receivers = match text("via") {
        Some(via) => via_edge(arguments, values, via, data.as_deref()).await?,
        None => on_redis(arguments, values, data.as_deref()).await?,
    };
    writeln!(std::io::stdout(), "{receivers}").map_err(Failure::other)
}

/// The data's JSON text, from the argument, a file or standard input.
fn data(argument: &str) -> Result<String, Failure> {
    let text = if argument == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(Failure::other)?;
        text
    } else if let Some(path) = argument.strip_prefix('@') {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--data names {path:?}: {error}")))?
    } else {
        argument.to_owned()
    };
    match serde_json::from_str::<&serde_json::value::RawValue>(&text) {
        Ok(_) => Ok(text.trim().to_owned()),
        Err(error) => Err(Failure::usage(format!("--data is not JSON: {error}"))),
    }
}

async fn on_redis(
    arguments: &ArgMatches,
    values: &Values,
    data: Option<&str>,
) -> Result<String, Failure> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let settings = RedisSettings::from_lookup(|name| values.get(name).map(str::to_owned))
        .map_err(Failure::usage)?;
    if settings.mode == signal_core::redis::RedisMode::None {
        return Err(Failure::usage(
            "there is no Redis to publish on: set APP_ENV_WEBSOCKET_REDIS_MODE=single, or name an \
             edge with --via http://127.0.0.1:3001",
        ));
    }
    let mut config = EmitterConfig::new(settings);
    // Whoever types a command sees the warning, and may mean TypeScript servers, which leave no record.
    config.edge_check = EdgeCheck::Warn;
    let emitter = Emitter::connect(config).await.map_err(failure)?;
    let publish = match (text("room"), text("user"), text("client")) {
        (Some(room), _, _) => emitter.to_room(room),
        (_, Some(user), _) => emitter.to_user(user),
        (_, _, Some(client)) => emitter.to_client(client),
        _ => emitter.broadcast(),
    };
    let exclude: Vec<&String> = arguments.get_many("exclude").into_iter().flatten().collect();
    let mut publish = publish.event(text("event").expect("it is required")).exclude(exclude);
    if let Some(data) = data {
        publish = publish.json(data);
    }
    let receipt = publish.send().await.map_err(failure)?;
    let _ = emitter.shutdown().await;
    Ok(published(receipt.receivers()))
}

fn published(receivers: Option<u64>) -> String {
    match receivers {
        Some(receivers) => format!("published, {receivers} receivers"),
        None => "published, receivers unknown: a cluster with classic pub/sub".to_owned(),
    }
}

fn failure(error: EmitterError) -> Failure {
    match error {
        EmitterError::Connect { .. }
        | EmitterError::Timeout
        | EmitterError::Disconnected
        | EmitterError::Expired
        | EmitterError::Lost { .. }
        | EmitterError::Overloaded => Failure::unavailable(error),
        EmitterError::Redis(_) => Failure::other(error),
        error => Failure::usage(error),
    }
}

async fn via_edge(
    arguments: &ArgMatches,
    values: &Values,
    via: &str,
    data: Option<&str>,
) -> Result<String, Failure> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let via: Uri = via
        .parse()
        .map_err(|_| Failure::usage("--via takes an address like http://127.0.0.1:3001"))?;
    let key = text("key").or_else(|| values.get("SIGNAL_API_KEY")).unwrap_or_default();
    let mut message = json!({ "event": text("event") });
    for target in ["room", "user", "client"] {
        if let Some(name) = text(target) {
            message[target] = json!(name);
        }
    }
    if arguments.get_flag("all") {
        message["all"] = json!(true);
    }
    let exclude: Vec<&String> = arguments.get_many("exclude").into_iter().flatten().collect();
    if !exclude.is_empty() {
        message["exclude"] = json!(exclude);
    }
    // The data goes as the text it is: a number keeps its digits.
    let mut body = message.to_string();
    if let Some(data) = data {
        body.truncate(body.len() - 1);
        body.push_str(",\"data\":");
        body.push_str(data);
        body.push('}');
    }
    let answer = publish::post(&via, key, body).await?;
    Ok(match answer["bus"].as_bool() {
        Some(false) => "delivered to this edge's clients only: the bus is away".to_owned(),
        _ => published(answer["receivers"].as_u64()),
    })
}
