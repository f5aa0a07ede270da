//! Numbered messages to every kind of target while something goes wrong, and what must hold of them.
//!
//! Each client has five streams: the broadcasts, a room of everyone, a room, a user and an id of its own.
//! A message may be lost while the bus is broken, but never silently: either its producer was told, or a
//! `resync` that covers the stream has to come after the last message before the gap. Nothing comes
//! twice, nothing out of order, and what is published once the edges are ready again arrives whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::Value;
use signal_client::{Client, Event, Events};
use signal_emitter::Emitter;
use tokio::task::JoinHandle;

use super::client::{close, named, next_online};
use super::{DEADLINE, Edge, until, within};

/// Messages of each stream after an outage, all of which have to arrive.
const TAIL: u64 = 30;

/// The traffic; see the module.
#[derive(Debug)]
pub struct Traffic {
    emitter: Arc<Emitter>,
    clients: Arc<Vec<String>>,
    stop: Arc<AtomicBool>,
    /// The number of the round under way.
    round: Arc<AtomicU64>,
    producing: JoinHandle<()>,
    listening: Vec<JoinHandle<Listener>>,
}

/// What a client heard, in order.
#[derive(Debug)]
struct Listener {
    index: usize,
    client: Client,
    events: Events,
    heard: Vec<Heard>,
    failed: Arc<Failed>,
}

/// Rounds of which the producer was told that Redis did not take, or may not have taken, all. With classic
/// pub/sub those of a node that dies are lost to edges which have no link to it, and cannot know.
type Failed = Mutex<BTreeSet<u64>>;

#[derive(Debug)]
enum Heard {
    Message(String, u64),
    /// Reload these rooms, or everything.
    Resync(Option<Vec<String>>),
}

// === impl Traffic ===

impl Traffic {
    /// Connects `count` clients, one after another to each edge, and begins to publish.
    pub async fn start(edges: &[&Edge], emitter: Emitter, count: usize) -> Self {
        let (mut listeners, mut clients) = (Vec::new(), Vec::new());
        let failed = Arc::new(Failed::default());
        for index in 0..count {
            let config = named(edges[index % edges.len()], &format!("user-{index}"));
            let (client, mut events) = signal_client::connect(config);
            let connected = next_online(&mut events).await;
            clients.push(connected["id"].as_str().expect("an id").to_owned());
            let rooms = ["shared".to_owned(), format!("room-{index}")];
            within("a join", client.join(rooms)).await.expect("joined and confirmed");
            let failed = failed.clone();
            listeners.push(Listener { index, client, events, heard: Vec::new(), failed });
        }
        let clients = Arc::new(clients);
        let (emitter, stop) = (Arc::new(emitter), Arc::new(AtomicBool::new(false)));
        let round = Arc::new(AtomicU64::new(0));
        let producing = tokio::spawn({
            let (emitter, clients) = (emitter.clone(), clients.clone());
            let (stop, round) = (stop.clone(), round.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let number = round.fetch_add(1, Ordering::Relaxed);
                    if !publish(&emitter, &clients, &number.to_string()).await {
                        failed.lock().insert(number);
                        // Not to spin while there is nobody to take it.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        });
        let listening =
            listeners.into_iter().map(|listener| tokio::spawn(listener.listen())).collect();
        let traffic = Self { emitter, clients, stop, round, producing, listening };
        traffic.flows().await;
        traffic
    }

    /// The channels of all streams, and how many of two edges have somebody who listens to each.
    pub fn channels(&self) -> Vec<(String, usize)> {
        let shared = ["ws:broadcast", "ws:room:shared"].map(|channel| (channel.to_owned(), 2));
        let own = self.clients.iter().enumerate().flat_map(|(index, client)| {
            [
                format!("ws:client:{client}"),
                format!("ws:room:room-{index}"),
                format!("ws:user:user-{index}"),
            ]
        });
        shared.into_iter().chain(own.map(|channel| (channel, 1))).collect()
    }

    /// Waits until some rounds more have been published.
    pub async fn flows(&self) {
        let before = self.round.load(Ordering::Relaxed);
        until("there is traffic", async || self.round.load(Ordering::Relaxed) > before + 20).await;
    }

    /// Ends the traffic, with a tail that has to arrive whole, checks all that has to hold, and closes the
    /// clients.
    pub async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        within("the producer stops", self.producing).await.expect("it does not panic");
        until("redis takes messages again", async || {
            publish(&self.emitter, &self.clients, "\"again\"").await
        })
        .await;
        let next = self.round.load(Ordering::Relaxed);
        for number in next..next + TAIL {
            assert!(publish(&self.emitter, &self.clients, &number.to_string()).await);
        }
        assert!(publish(&self.emitter, &self.clients, "\"end\"").await);
        for listening in self.listening {
            let listener = listening.await.expect("it ends well");
            listener.check(next);
            close((listener.client, listener.events)).await;
        }
    }
}

/// One message to each stream; returns whether Redis took all.
async fn publish(emitter: &Emitter, clients: &[String], data: &str) -> bool {
    let rooms: Vec<_> = (0..clients.len()).map(|index| format!("room-{index}")).collect();
    let users: Vec<_> = (0..clients.len()).map(|index| format!("user-{index}")).collect();
    let mut messages = vec![
        emitter.broadcast().event("broadcast").json(data).send(),
        emitter.to_room("shared").event("shared").json(data).send(),
    ];
    for ((room, user), client) in rooms.iter().zip(&users).zip(clients) {
        messages.push(emitter.to_room(room).event("room").json(data).send());
        messages.push(emitter.to_user(user).event("user").json(data).send());
        messages.push(emitter.to_client(client.as_str()).event("client").json(data).send());
    }
    join_all(messages).await.iter().all(Result::is_ok)
}

// === impl Listener ===

impl Listener {
    /// Reads every stream to its end, and on until each gap is announced.
    async fn listen(mut self) -> Self {
        let mut open = 5;
        let mut ends = Vec::new();
        while open > 0 || self.silent_gap().is_some() {
            let Ok(event) = tokio::time::timeout(3 * DEADLINE, self.events.next()).await else {
                panic!("client {}: ends {ends:?}, silent: {:?}", self.index, self.silent_gap());
            };
            let message = match event.expect("the client goes on") {
                Event::Message(message) => message,
                Event::Resync { rooms, .. } => {
                    self.heard.push(Heard::Resync(rooms));
                    continue;
                }
                // Its connection stays, whatever happens to the bus.
                event => panic!("client {}: {event:?}", self.index),
            };
            let data: Value = message.parse().expect("data is JSON");
            if data == "end" {
                ends.push(message.event);
                open -= 1;
            } else if let Some(number) = data.as_u64() {
                self.heard.push(Heard::Message(message.event, number));
            }
        }
        self
    }

    fn covers(&self, rooms: Option<&[String]>, event: &str) -> bool {
        let room = match event {
            "shared" => "shared".to_owned(),
            "room" => format!("room-{}", self.index),
            // What comes otherwise is covered by everything only.
            _ => return rooms.is_none(),
        };
        rooms.is_none_or(|rooms| rooms.contains(&room))
    }

    /// The numbers of each stream, with their positions among all that was heard.
    fn streams(&self) -> BTreeMap<&str, Vec<(usize, u64)>> {
        let mut streams: BTreeMap<&str, Vec<(usize, u64)>> = BTreeMap::new();
        for (position, heard) in self.heard.iter().enumerate() {
            if let Heard::Message(event, number) = heard {
                streams.entry(event).or_default().push((position, *number));
            }
        }
        streams
    }

    /// Messages of a stream that are missing, and no `resync` has come since that covers them.
    fn silent_gap(&self) -> Option<String> {
        for (event, numbers) in self.streams() {
            for two in numbers.windows(2) {
                let ((position, before), (_, after)) = (two[0], two[1]);
                let is_announced = self.heard[position..].iter().any(|heard| match heard {
                    Heard::Resync(rooms) => self.covers(rooms.as_deref(), event),
                    Heard::Message(..) => false,
                });
                let failed = self.failed.lock();
                let is_told = || (before + 1..after).all(|number| failed.contains(&number));
                if !is_announced && !is_told() {
                    return Some(format!("{event} between {before} and {after}"));
                }
            }
        }
        None
    }

    /// Numbers only grow, and the last ones are all there.
    fn check(&self, tail: u64) {
        let streams = self.streams();
        assert_eq!(streams.len(), 5, "client {}", self.index);
        for (event, numbers) in streams {
            let numbers: Vec<u64> = numbers.into_iter().map(|(_, number)| number).collect();
            let name = format!("{event} of client {}", self.index);
            for two in numbers.windows(2) {
                assert!(two[0] < two[1], "{name}: {} after {}", two[1], two[0]);
            }
            let from = numbers.partition_point(|number| *number < tail);
            let expected: Vec<u64> = (tail..tail + TAIL).collect();
            assert_eq!(numbers[from..], expected, "{name}");
        }
    }
}
