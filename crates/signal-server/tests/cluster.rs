//! A Redis Cluster of three masters and three replicas: delivery, and every way in which it breaks.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::json;
use signal_client::Event;
use signal_core::channel::{partition, unsharded_name};
use signal_core::redis::PubSub;
use signal_emitter::Emitter;
use support::client::{close, message, named, next, next_online};
use support::{Cluster, Edge, MASTERS, Socket, Traffic, emitter_config, until};

const MODES: [PubSub; 2] = [PubSub::Classic, PubSub::Sharded];

/// What stays subscribed when every client has gone.
const BASELINE: [&str; 2] = ["ws:broadcast", "ws:revoke"];

async fn emitter(cluster: &Cluster, pubsub: PubSub) -> Emitter {
    let config = emitter_config(cluster.settings(pubsub));
    Emitter::connect(config).await.expect("the cluster is up")
}

async fn channels(cluster: &Cluster) -> Vec<String> {
    let mut channels: Vec<String> = cluster
        .channels()
        .await
        .iter()
        .map(|name| unsharded_name(name).unwrap_or(name).to_owned())
        .collect();
    channels.sort();
    channels.dedup();
    channels
}

/// Closes the clients, and shows that nothing of them is left, here or on the cluster.
async fn finish(cluster: &Cluster, edges: &[&Edge], sockets: impl IntoIterator<Item = Socket>) {
    for socket in sockets {
        socket.close().await;
    }
    for edge in edges {
        edge.is_empty().await;
    }
    until("the cluster is at its baseline", async || channels(cluster).await == BASELINE).await;
}

/// Two edges with six clients and their traffic, through a fault and what follows from it.
async fn through(pubsub: PubSub, fault: impl AsyncFnOnce(&mut Cluster, &Traffic, &[&Edge])) {
    let mut cluster = Cluster::start().await;
    let edges =
        [Edge::on_cluster(&cluster, pubsub).await, Edge::on_cluster(&cluster, pubsub).await];
    let edges = [&edges[0], &edges[1]];
    let traffic = Traffic::start(&edges, emitter(&cluster, pubsub).await, 6).await;
    fault(&mut cluster, &traffic, &edges).await;
    if pubsub == PubSub::Sharded {
        // An edge is ready too while it does not know yet that a slot has moved.
        for (channel, edges) in traffic.channels() {
            until(&channel, async || cluster.is_heard(&channel, edges).await).await;
        }
    }
    for edge in edges {
        edge.ready().await;
    }
    traffic.finish().await;
    finish(&cluster, &edges, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_target_is_reached_once_and_by_exact_channels() {
    let cluster = Cluster::start().await;
    for pubsub in MODES {
        let one = Edge::on_cluster(&cluster, pubsub).await;
        let two = Edge::on_cluster(&cluster, pubsub).await;
        let mut sockets = Vec::new();
        for index in 0..40 {
            let edge = if index % 2 == 0 { &one } else { &two };
            let room = format!("branch:{index}");
            sockets.push(edge.member(&format!("u-{index}"), &["all", &room]).await);
        }
        let emitter = emitter(&cluster, pubsub).await;
        let ids: Vec<_> = sockets.iter().map(|socket| socket.id.clone()).collect();
        for (index, id) in ids.iter().enumerate() {
            let (room, user) = (format!("branch:{index}"), format!("u-{index}"));
            emitter.to_room(&room).event("room").data(&index).send().await.expect("sent");
            emitter.to_user(&user).event("user").data(&index).send().await.expect("sent");
            emitter.to_client(id.as_str()).event("client").data(&index).send().await.expect("sent");
        }
        emitter.to_room("all").event("shared").data(&0).send().await.expect("sent");
        emitter.broadcast().event("everyone").data(&0).send().await.expect("sent");
        for (index, socket) in sockets.iter_mut().enumerate() {
            // Different channels are different nodes and workers: their order is not defined.
            let mut events = Vec::new();
            for _ in 0..5 {
                events.push(socket.next_event().await);
            }
            events.sort_by(|left, right| left.0.cmp(&right.0));
            let expected = [
                ("client", index),
                ("everyone", 0),
                ("room", index),
                ("shared", 0),
                ("user", index),
            ];
            let expected = expected.map(|(event, data)| (event.to_owned(), json!(data)));
            assert_eq!(events, expected, "{pubsub:?} {index}");
        }
        let subscribed = channels(&cluster).await;
        let own = ids.iter().map(|id| format!("ws:client:{id}"));
        assert!(own.into_iter().all(|channel| subscribed.contains(&channel)));
        finish(&cluster, &[&one, &two], sockets).await;
        one.stop().await;
        two.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_message_comes_to_the_edges_that_have_members_and_no_other() {
    let cluster = Cluster::start().await;
    let (one, two) = (
        Edge::on_cluster(&cluster, PubSub::Sharded).await,
        Edge::on_cluster(&cluster, PubSub::Sharded).await,
    );
    let mut member = one.member("u", &["r"]).await;
    let other = two.member("v", &["elsewhere"]).await;
    let before = two.counts().await.counters.bus_messages;
    let emitter = emitter(&cluster, PubSub::Sharded).await;
    for number in 0..100 {
        emitter.to_room("r").event("n").data(&number).send().await.expect("sent");
    }
    for number in 0..100 {
        assert_eq!(member.event("n").await, json!(number));
    }
    assert_eq!(two.counts().await.counters.bus_messages, before);
    finish(&cluster, &[&one, &two], [member, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_killed_is_replaced_by_its_replica() {
    for pubsub in MODES {
        through(pubsub, async |cluster, traffic, edges| {
            let victim = cluster.owner("ws:room:shared").await;
            cluster.nodes[victim].kill();
            for edge in edges {
                until("the edge is not ready", async || !edge.handle.readiness().is_empty()).await;
            }
            cluster.whole().await;
            for edge in edges {
                edge.ready().await;
            }
            traffic.flows().await;
            cluster.nodes[victim].restart().await;
            cluster.whole().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masters_and_replicas_change_places_and_nothing_comes_twice() {
    through(PubSub::Sharded, async |cluster, traffic, edges| {
        for round in 0..2 {
            for index in 0..MASTERS {
                let (master, replica) = match round {
                    0 => (index, index + MASTERS),
                    _ => (index + MASTERS, index),
                };
                cluster.fail_over(master, replica).await;
                cluster.whole().await;
                for edge in edges {
                    edge.ready().await;
                }
                traffic.flows().await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_that_move_while_messages_flow_take_their_channels_along() {
    through(PubSub::Sharded, async |cluster, traffic, edges| {
        let rooms = (0..6).map(|index| format!("ws:room:room-{index}"));
        let partitions: Vec<_> = rooms.map(|room| partition(&room)).collect();
        let connects = edges[0].counts().await.counters.bus_connects;
        // There, on, and back: each master has been without a slot once.
        for (from, to) in [(0, 1), (1, 2), (2, 0), (0, 1), (0, 2)] {
            cluster.move_slots(from, to).await;
            traffic.flows().await;
            for edge in edges {
                edge.ready().await;
            }
        }
        assert!(partitions.len() == 6 && edges[0].counts().await.counters.bus_connects >= connects);
        // Whatever the shares are now, a part of the slots for each.
        cluster.spread().await;
        for edge in edges {
            edge.ready().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_all_nodes_is_survived() {
    for pubsub in MODES {
        through(pubsub, async |cluster, traffic, edges| {
            for index in 0..2 * MASTERS {
                cluster.nodes[index].kill();
                cluster.nodes[index].restart().await;
                cluster.whole().await;
                for edge in edges {
                    edge.ready().await;
                }
                traffic.flows().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_at_once_come_back() {
    for pubsub in MODES {
        through(pubsub, async |cluster, _, edges| {
            for node in &mut cluster.nodes {
                node.kill();
            }
            for edge in edges {
                until("the edge is not ready", async || !edge.handle.readiness().is_empty()).await;
            }
            for node in &mut cluster.nodes {
                node.restart().await;
            }
            cluster.whole().await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_subscriber_connections_are_made_again() {
    for pubsub in MODES {
        through(pubsub, async |cluster, traffic, edges| {
            for _ in 0..3 {
                let gaps = edges[0].counts().await.counters.bus_gaps;
                for node in &cluster.nodes {
                    node.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
                }
                until("the edge notices", async || {
                    edges[0].counts().await.counters.bus_gaps > gaps
                })
                .await;
                for edge in edges {
                    edge.ready().await;
                }
                traffic.flows().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_down_at_the_start_is_the_same_as_later() {
    let mut cluster = Cluster::start().await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    let mut settings = support::config();
    settings.redis = cluster.settings(PubSub::Sharded);
    let edge = Edge::with(settings).await;
    until("it says why", async || {
        edge.handle.readiness().iter().any(|reason| reason.contains("has answered yet"))
    })
    .await;
    let (client, mut events) = signal_client::connect(named(&edge, "u"));
    assert_eq!(next_online(&mut events).await["degraded"], true);
    for node in &mut cluster.nodes {
        node.restart().await;
    }
    assert!(matches!(next(&mut events).await, Event::Resync { rooms: None, .. }));
    cluster.whole().await;
    edge.ready().await;
    let emitter = emitter(&cluster, PubSub::Sharded).await;
    emitter.to_user("u").event("after").send().await.expect("sent");
    message(&mut events, "after").await;
    close((client, events)).await;
    finish(&cluster, &[&edge], []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_one_node_refuses_disturbs_no_other() {
    let cluster = Cluster::start().await;
    let edge = Edge::on_cluster(&cluster, PubSub::Sharded).await;
    for node in &cluster.nodes {
        node.ok(&["ACL", "SETUSER", "default", "resetchannels", "&*ws:probe:*", "&*ws:broadcast"])
            .await;
        node.ok(&["ACL", "SETUSER", "default", "&*ws:user:*", "&*ws:client:*", "&*ws:room:open*"])
            .await;
    }
    let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
    socket.login("u").await;
    let join = json!({ "event": "join", "data": { "rooms": ["closed", "open"] }, "id": 1 });
    assert_eq!(socket.ask(join).await.1["degraded"], true);
    let emitter = emitter(&cluster, PubSub::Sharded).await;
    emitter.to_room("open").event("heard").send().await.expect("sent");
    while socket.next_event().await.0 != "heard" {}
    for node in &cluster.nodes {
        node.ok(&["ACL", "SETUSER", "default", "allchannels"]).await;
    }
    // What is refused does not make an edge unready, and is tried again from time to time.
    until("the channel is heard", async || {
        let counts = edge.counts().await;
        counts.channels_confirmed == counts.channels_wanted
    })
    .await;
    emitter.to_room("closed").event("healed").send().await.expect("sent");
    while socket.next_event().await.0 != "healed" {}
    finish(&cluster, &[&edge], [socket]).await;
}
