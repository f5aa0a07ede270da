//! The Rust client in tests: what an ordinary client does, for those that test something else.

use std::time::Duration;

use serde_json::{Value, json};
use signal_client::{Client, Config, Event, Events, Loss, Message};

use super::{Edge, within};

/// Waits that a test can wait for.
const SHORT: Duration = Duration::from_millis(20);

/// A client of this edge that is named ann.
pub fn settings(edge: &Edge) -> Config {
    let config = Config::new(&format!("ws://{}/ws", edge.address)).expect("an address");
    quick(config.credentials(json!({ "userId": "ann" })))
}

/// One that comes back soon.
pub fn quick(config: Config) -> Config {
    config.reconnect(SHORT, 5 * SHORT, 10 * SHORT)
}

/// One that is named so.
pub fn named(edge: &Edge, user: &str) -> Config {
    settings(edge).credentials(json!({ "userId": user }))
}

/// A client that is online.
pub async fn online(config: Config) -> (Client, Events) {
    let (client, mut events) = signal_client::connect(config);
    next_online(&mut events).await;
    (client, events)
}

pub async fn next_online(events: &mut Events) -> Value {
    within("online", async {
        loop {
            match events.next().await.expect("the client goes on") {
                Event::Online(data) => return serde_json::from_str(data.get()).expect("JSON"),
                Event::Closed(loss) => panic!("{loss}"),
                _ => {}
            }
        }
    })
    .await
}

pub async fn next(events: &mut Events) -> Event {
    within("an event", events.next()).await.expect("the client goes on")
}

pub async fn next_message(events: &mut Events) -> Message {
    match next(events).await {
        Event::Message(message) => message,
        event => panic!("not a message: {event:?}"),
    }
}

/// The next message of this event, passing over other messages and what the edge itself says.
pub async fn message(events: &mut Events, event: &str) -> Message {
    loop {
        match next(events).await {
            Event::Message(message) if message.event == event => return message,
            Event::Recovering { loss, .. } | Event::Closed(loss) => panic!("{loss}"),
            _ => {}
        }
    }
}

/// Waits until the connection is lost.
pub async fn lost(events: &mut Events) -> Loss {
    loop {
        if let Event::Recovering { loss, .. } = next(events).await {
            return loss;
        }
    }
}

/// Closes a client, and waits for its end.
pub async fn close((client, mut events): (Client, Events)) {
    client.close().await;
    assert_eq!(closed(&mut events).await, Loss::Application);
}

pub async fn closed(events: &mut Events) -> Loss {
    within("the end", async {
        loop {
            if let Event::Closed(loss) = events.next().await.expect("it says how it ends") {
                assert!(events.next().await.is_none());
                return loss;
            }
        }
    })
    .await
}
