//! Who gets what, in which order: on the in-process bus and on a real Redis with several edges.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::json;
use signal_server::Publication;
use support::{Edge, Redis};

#[tokio::test(flavor = "multi_thread")]
async fn a_room_message_reaches_its_members_alone() {
    let edge = Edge::start().await;
    let mut inside = edge.member("a", &["branch:1"]).await;
    let mut other = edge.member("b", &["branch:2"]).await;
    edge.handle.send_to_room("branch:1", "order.created", &json!({ "id": 7 })).await.unwrap();
    assert_eq!(inside.text().await, r#"{"event":"order.created","data":{"id":7}}"#);
    assert_eq!(other.settled(&edge.handle).await, []);
    inside.close().await;
    other.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_edges_deliver_once_and_in_order() {
    let redis = Redis::start().await;
    let (one, two) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut here = one.member("a", &["r"]).await;
    let mut there = two.member("b", &["r"]).await;
    for number in 0..500 {
        one.handle.publish(Publication::room("r", "n").data(&number).unwrap()).await.unwrap();
    }
    for socket in [&mut here, &mut there] {
        for number in 0..500 {
            assert_eq!(socket.event("n").await, json!(number));
        }
        assert_eq!(socket.settled(&one.handle).await, []);
    }
    here.close().await;
    there.close().await;
    one.is_empty().await;
    two.is_empty().await;
}
