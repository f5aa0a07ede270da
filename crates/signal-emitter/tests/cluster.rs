//! An emitter on a Redis Cluster: its servers die, hang, move slots and come back.

#![allow(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails at a surprise, runs once"
)]

#[path = "support/cluster.rs"]
mod cluster;
mod support;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use signal_core::{channel::slot, envelope::Envelope};
use signal_emitter::{
    Emitter, EmitterConfig, EmitterError, WhenAway,
    redis::{PubSub, RedisMode},
};
use tokio::{sync::oneshot, task::JoinHandle};

use cluster::{Cluster, channel_of, room_of};
use support::{Redis, Reply, Socket, bounded, emitter_config, free_port};

const LONG: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(2);

fn failing(cluster: &Cluster, pubsub: PubSub) -> EmitterConfig {
    let mut config = emitter_config(cluster.settings(pubsub));
    // Beyond what a busy machine takes for one of the calls that are to succeed.
    config.timeout = Duration::from_secs(5);
    config
}

fn holding(cluster: &Cluster, pubsub: PubSub) -> EmitterConfig {
    let mut config = failing(cluster, pubsub);
    config.when_away = WhenAway::Hold { bytes_max: 16 << 20 };
    config
}

/// Id and number of the next message.
fn next(subscriber: &mut Socket) -> Option<(String, u64)> {
    let (_, payload) = subscriber.message_or_end()?;
    let envelope = Envelope::decode(&payload).unwrap();
    Some((envelope.id.unwrap().into_owned(), envelope.data.unwrap().parse().unwrap()))
}

async fn send(emitter: &Emitter, room: &str, number: u64) -> Result<Option<u64>, EmitterError> {
    let message = emitter.to_room(room).event("n").data(&number);
    message.send().await.map(|receipt| receipt.receivers())
}

/// Sends numbers to a room, several at a time, until told to stop; every one has to succeed. Returns
/// how many there were.
fn keep_sending(emitter: &Emitter, room: &str) -> (oneshot::Sender<()>, JoinHandle<u64>) {
    const AT_A_TIME: u64 = 8;
    let (stop, mut stopped) = oneshot::channel();
    let (emitter, room) = (emitter.clone(), room.to_owned());
    let sending = tokio::spawn(async move {
        let mut number = 0;
        while stopped.try_recv().is_err() {
            let messages = (number..number + AT_A_TIME).map(|number| {
                emitter.to_room(&room).event("n").data(&number).deadline(LONG).send()
            });
            for outcome in join_all(messages).await {
                outcome.expect("nothing is lost");
            }
            number += AT_A_TIME;
            tokio::time::sleep(PAUSE).await;
        }
        number
    });
    (stop, sending)
}

async fn connected(emitter: &Emitter, is_connected: bool) {
    bounded(async {
        while emitter.is_connected() != is_connected {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sharded_messages_go_to_the_owner_of_their_slot_and_are_counted() {
    let cluster = Cluster::start();
    let emitter = Emitter::connect(failing(&cluster, PubSub::Sharded)).await.unwrap();
    assert!(emitter.is_connected());
    for master in 0..3 {
        let room = room_of(master);
        assert_eq!(send(&emitter, &room, 1).await.unwrap(), Some(0));
        let mut subscriber = cluster.socket(master);
        assert!(subscriber.listen_sharded(&channel_of(&room)));
        assert_eq!(send(&emitter, &room, 2).await.unwrap(), Some(1));
        assert_eq!(next(&mut subscriber).unwrap().1, 2);
    }
    let message = emitter.broadcast().event("n").require_receivers();
    assert!(matches!(message.send().await.unwrap_err(), EmitterError::NoReceivers { .. }));
    emitter.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classic_messages_reach_subscribers_of_every_server_uncounted() {
    let mut cluster = Cluster::start();
    let emitter = Emitter::connect(failing(&cluster, PubSub::Classic)).await.unwrap();
    let mut subscribers: Vec<_> = (0..6).map(|index| cluster.socket(index)).collect();
    for subscriber in &mut subscribers {
        subscriber.call(&["SUBSCRIBE", "ws:room:r"]);
    }
    for number in 0..100 {
        assert_eq!(send(&emitter, "r", number).await.unwrap(), None);
    }
    for subscriber in &mut subscribers {
        for number in 0..100 {
            assert_eq!(next(subscriber).unwrap().1, number);
        }
    }
    let message = emitter.to_room("r").event("n").require_receivers();
    assert!(matches!(message.send().await.unwrap_err(), EmitterError::Unsupported { .. }));

    // Whichever server takes the messages, another one does when it dies.
    for master in 0..2 {
        cluster.kill(master);
        bounded(async {
            while send(&emitter, "r", 1000).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        })
        .await;
    }
    connected(&emitter, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_for_a_dead_master_arrives_in_order_at_its_replica() {
    let mut cluster = Cluster::start();
    let emitter = Emitter::connect(holding(&cluster, PubSub::Sharded)).await.unwrap();
    let (room, other) = (room_of(0), room_of(1));
    // The replica hears what its master gets, and what it gets itself once it is promoted.
    let mut subscriber = cluster.socket(3);
    assert!(subscriber.listen_sharded(&channel_of(&room)));
    let (stop, sending) = keep_sending(&emitter, &room);
    let (stop_other, sending_other) = keep_sending(&emitter, &other);
    for _ in 0..20 {
        next(&mut subscriber).unwrap();
    }
    cluster.kill(0);
    connected(&emitter, false).await;
    cluster.is_master(3);
    connected(&emitter, true).await;
    tokio::time::sleep(50 * PAUSE).await;
    let _ = (stop.send(()), stop_other.send(()));
    let count = bounded(sending).await.unwrap();
    assert!(bounded(sending_other).await.unwrap() > 0);

    // A message that was under way may come twice, with the same id; its first coming is in order.
    let mut ids: Vec<String> = Vec::new();
    let mut expected = 20;
    while expected < count {
        let (id, number) = next(&mut subscriber).unwrap();
        if ids.contains(&id) {
            continue;
        }
        assert_eq!(number, expected, "in order, and each");
        ids.push(id);
        expected += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_master_fails_its_own_calls_only() {
    let mut cluster = Cluster::start();
    let emitter = Arc::new(Emitter::connect(failing(&cluster, PubSub::Sharded)).await.unwrap());
    let rooms: Vec<_> = (0..3).map(room_of).collect();
    cluster.kill(1);
    connected(&emitter, false).await;
    // Until its replica has taken over: that master's fail, the others' never.
    let mut failures = 0;
    bounded(async {
        loop {
            for room in [&rooms[0], &rooms[2]] {
                send(&emitter, room, 0).await.expect("its master is well");
            }
            match send(&emitter, &rooms[1], 0).await {
                Ok(_) => return,
                Err(EmitterError::Disconnected | EmitterError::Lost { .. }) => failures += 1,
                Err(error) => panic!("{error:?}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
    assert!(failures > 0, "the failover took some time");
    connected(&emitter, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_holds_up_its_own_calls_only() {
    let cluster = Cluster::start();
    let emitter = Emitter::connect(failing(&cluster, PubSub::Sharded)).await.unwrap();
    let rooms: Vec<_> = (0..3).map(room_of).collect();
    cluster.signal(2, "-STOP");
    let short = Duration::from_millis(50);
    let stuck = emitter.to_room(&rooms[2]).event("n").deadline(short).send();
    assert!(matches!(bounded(stuck).await.unwrap_err(), EmitterError::Timeout));
    for room in [&rooms[0], &rooms[1]] {
        send(&emitter, room, 0).await.expect("its master is well");
    }
    // An emitter that starts now does not wait for it either.
    let mut config = failing(&cluster, PubSub::Sharded);
    config.timeout = Duration::from_secs(2);
    let late = bounded(Emitter::connect(config)).await.unwrap();
    send(&late, &rooms[0], 0).await.expect("its master is well");
    cluster.signal(2, "-CONT");
    bounded(async {
        while send(&emitter, &rooms[2], 0).await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_move_and_every_message_arrives_once_and_in_order() {
    let cluster = Cluster::start();
    let emitter = Emitter::connect(failing(&cluster, PubSub::Sharded)).await.unwrap();
    let room = room_of(0);
    let channel = channel_of(&room);
    let mut before = cluster.socket(0);
    assert!(before.listen_sharded(&channel));
    let (stop, sending) = keep_sending(&emitter, &room);
    let mut numbers: Vec<u64> = (0..20).map(|_| next(&mut before).unwrap().1).collect();
    let mut after = cluster.socket(1);
    cluster.move_slot(slot(&channel), 0, 1, || assert!(after.listen_sharded(&channel)));
    let moved = next(&mut after).unwrap().1;
    let _ = stop.send(());
    let count = bounded(sending).await.unwrap();
    // The old owner ends the subscription behind its last message.
    while let Some((_, number)) = next(&mut before) {
        numbers.push(number);
    }
    numbers.push(moved);
    while numbers.last() != Some(&(count - 1)) {
        numbers.push(next(&mut after).unwrap().1);
    }
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_may_restart() {
    let mut cluster = Cluster::start();
    let emitter = Emitter::connect(holding(&cluster, PubSub::Sharded)).await.unwrap();
    let rooms: Vec<_> = (0..3).map(room_of).collect();
    let sending: Vec<_> = rooms.iter().map(|room| keep_sending(&emitter, room)).collect();
    for node in 0..6 {
        cluster.kill(node);
    }
    connected(&emitter, false).await;
    for node in 0..6 {
        cluster.restart(node);
    }
    cluster.is_whole();
    connected(&emitter, true).await;
    for (stop, sending) in sending {
        let _ = stop.send(());
        bounded(sending).await.unwrap();
    }
    for room in &rooms {
        bounded(send(&emitter, room, 0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_seed_that_answers_is_enough() {
    let cluster = Cluster::start();
    let mut config = failing(&cluster, PubSub::Sharded);
    let RedisMode::Cluster { nodes } = &mut config.redis.mode else { panic!() };
    let dead = ("127.0.0.1".to_owned(), free_port());
    *nodes = vec![dead.clone(), nodes[4].clone()];
    let emitter = Emitter::connect(config.clone()).await.unwrap();
    for master in 0..3 {
        send(&emitter, &room_of(master), 0).await.unwrap();
    }
    config.redis.mode = RedisMode::Cluster { nodes: vec![dead] };
    config.timeout = Duration::from_millis(200);
    let error = bounded(Emitter::connect(config)).await.unwrap_err();
    assert!(matches!(error, EmitterError::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_redis_is_no_cluster() {
    let redis = Redis::start();
    let mut settings = redis.settings();
    settings.mode = RedisMode::Cluster { nodes: vec![("127.0.0.1".to_owned(), redis.port)] };
    let mut config = emitter_config(settings);
    config.timeout = Duration::from_millis(500);
    let error = bounded(Emitter::connect(config)).await.unwrap_err();
    assert!(matches!(error, EmitterError::Connect { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_of_a_cluster_needs_few_rights() {
    let cluster = Cluster::start();
    for node in 0..6 {
        let rules = [
            "ACL",
            "SETUSER",
            "producer",
            "on",
            "nopass",
            "resetchannels",
            "&{*}ws:room:*",
            "-@all",
            "+spublish",
            "+cluster|slots",
        ];
        assert_eq!(cluster.socket(node).call(&rules), Reply::Text("OK".into()));
    }
    let mut config = failing(&cluster, PubSub::Sharded);
    config.redis.username = Some("producer".to_owned());
    let emitter = Emitter::connect(config).await.unwrap();
    for master in 0..3 {
        send(&emitter, &room_of(master), 0).await.unwrap();
    }
    let error = emitter.to_user("u").event("n").send().await.unwrap_err();
    assert!(matches!(&error, EmitterError::Redis(answer) if answer.starts_with("NOPERM")));
}
