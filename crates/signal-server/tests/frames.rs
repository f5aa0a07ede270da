//! What clients send below the messages: frames, whole and broken, in any cut, and the closing.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use signal_server::{Client, Message, Signal};
use support::socket::frame;
use support::{Edge, Frame, config, until};

/// The head of a text frame that claims to be as long as this.
fn claimed(length: u64) -> Vec<u8> {
    let mut head = vec![0x81, 0xFF];
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&[0; 4]);
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_frame_is_read_as_its_text() {
    let edge = Edge::start().await;
    let mut socket = edge.connect().await;
    socket.send_raw(&frame(0x82, br#"{"event":"authenticate","data":{"userId":"u"}}"#)).await;
    socket.event("connected").await;
    socket.send_raw(&frame(0x82, &[0xFF, 0xFE])).await;
    socket.error("Invalid message format").await;
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_close_with_the_code_of_the_rfc() {
    let edge = Edge::start().await;
    let mut unmasked = frame(0x81, b"hi");
    unmasked[1] &= 0x7F;
    for (bytes, code) in [
        (unmasked, 1002),
        (frame(0xC1, b"x"), 1002),
        (frame(0x83, b"x"), 1002),
        (frame(0x09, b"x"), 1002),
        (frame(0x89, &[0; 126]), 1002),
        (frame(0x80, b"x"), 1002),
        ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
        (frame(0x88, &[3]), 1002),
        (frame(0x88, &999_u16.to_be_bytes()), 1002),
        (frame(0x88, &1005_u16.to_be_bytes()), 1002),
        (frame(0x88, &1015_u16.to_be_bytes()), 1002),
        (frame(0x88, &5000_u16.to_be_bytes()), 1002),
        (frame(0x88, &[3, 0xE8, 0xC3, 0x28]), 1007),
        (frame(0x08, &1000_u16.to_be_bytes()), 1002),
        (frame(0x8B, b"x"), 1002),
        (frame(0xA1, b"x"), 1002),
        (frame(0x91, b"x"), 1002),
        (frame(0x81, &[0xC3, 0x28]), 1007),
        (frame(0x81, &[0xED, 0xA0, 0x80]), 1007),
        ([frame(0x01, &[0xE2, 0x98]), frame(0x80, b"x")].concat(), 1007),
        (frame(0x81, &vec![b'x'; 128 * 1024 + 1]), 1009),
        // A length is believed before its bytes have come, or not at all.
        (claimed(128 * 1024 + 1), 1009),
        (claimed(u64::MAX >> 1), 1009),
        (claimed(u64::MAX), 1002),
        ([frame(0x01, &vec![b'x'; 128 * 1024]), frame(0x80, b"x")].concat(), 1009),
    ] {
        let mut socket = edge.login("u").await;
        socket.send_raw(&bytes).await;
        socket.send_raw(&vec![0xFF; 100_000]).await;
        assert_eq!(socket.closed().await.0, code);
        assert_eq!(socket.next().await, Frame::End);
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_may_come_byte_by_byte_and_in_fragments() {
    let edge = Edge::start().await;
    let mut socket = edge.connect().await;
    let login = frame(0x81, br#"{"event":"authenticate","data":{"userId":"u"}}"#);
    for byte in login {
        socket.send_raw(&[byte]).await;
    }
    socket.event("connected").await;
    socket.send_raw(&frame(0x01, b"{\"event\":")).await;
    socket.send_raw(&frame(0x89, b"between")).await;
    assert_eq!(socket.next().await, Frame::Pong(b"between".to_vec()));
    socket.send_raw(&frame(0x00, b"\"authenti")).await;
    socket.send_raw(&frame(0x80, b"cate\"}")).await;
    socket.error("Already authenticated").await;
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_is_echoed_and_one_without_an_answer_is_cut() {
    let edge = Edge::start().await;
    let mut polite = edge.login("u").await;
    polite.send_raw(&frame(0x88, &4000_u16.to_be_bytes())).await;
    assert_eq!(polite.closed().await, (4000, String::new()));
    assert_eq!(polite.next().await, Frame::End);
    // A peer that does not answer the edge's close.
    let mut rude = edge.login("u").await;
    let id = signal_core::id::ClientId::parse(&rude.id).unwrap();
    assert!(edge.handle.close(id, signal_core::close::CloseCode::Kicked).await.unwrap());
    assert_eq!(rude.closed().await, (4501, "Kicked".to_owned()));
    assert_eq!(rude.next().await, Frame::End);
    // One that is simply gone.
    drop(edge.login("u").await);
    until("all closes are counted", async || {
        let closes = edge.counts().await.counters.closes;
        // Codes of the peer's own choice are not told apart.
        [0, 1006, 4501].iter().all(|code| closes.get(code) == Some(&1))
    })
    .await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_in_one_segment_are_all_handled_in_order() {
    let seen: Arc<Mutex<Vec<Value>>> = Arc::default();
    let handled = seen.clone();
    let on_message = move |_: Client, message: Message| {
        let handled = handled.clone();
        async move {
            // Some are handled at once, and some keep those behind them waiting.
            if message.event == "slow" {
                tokio::task::yield_now().await;
            }
            handled.lock().push(message.parse()?);
            Ok(())
        }
    };
    let edge = Edge::build(Signal::builder().config(config()).on_message(on_message)).await;
    let mut socket = edge.login("u").await;
    let mut segment = Vec::new();
    for number in 0..900 {
        let event = if number % 100 == 50 { "slow" } else { "quick" };
        let text = json!({ "event": event, "data": number }).to_string();
        segment.extend(frame(0x81, text.as_bytes()));
    }
    segment.extend(frame(0x89, b"last"));
    socket.send_raw(&segment).await;
    assert_eq!(socket.next().await, Frame::Pong(b"last".to_vec()));
    until("all are handled", async || seen.lock().len() == 900).await;
    assert_eq!(*seen.lock(), (0..900).map(|number| json!(number)).collect::<Vec<_>>());
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_message_is_taken_in_one_frame_and_in_many() {
    const LARGEST: usize = 128 * 1024;
    let lengths: Arc<Mutex<Vec<usize>>> = Arc::default();
    let handled = lengths.clone();
    let on_message = move |_: Client, message: Message| {
        handled.lock().push(message.data.map_or(0, |data| data.len()));
        std::future::ready(Ok(()))
    };
    let edge = Edge::build(Signal::builder().config(config()).on_message(on_message)).await;
    let mut socket = edge.login("u").await;
    let around = r#"{"event":"e","data":""}"#.len();
    let text = format!(r#"{{"event":"e","data":"{}"}}"#, "x".repeat(LARGEST - around));
    assert_eq!(text.len(), LARGEST);
    socket.send_text(&text).await;
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(50_000).collect();
    let last = pieces.len() - 1;
    for (index, piece) in pieces.iter().enumerate() {
        let first = match index {
            0 => 0x01,
            index if index == last => 0x80,
            _ => 0x00,
        };
        socket.send_raw(&frame(first, piece)).await;
        socket.send_raw(&frame(0x8A, b"unasked")).await;
    }
    // Empty frames are frames too.
    socket.send_raw(&frame(0x01, b"")).await;
    socket.send_raw(&frame(0x00, br#"{"event":"e"}"#)).await;
    socket.send_raw(&frame(0x80, b"")).await;
    socket.send_raw(&frame(0x89, b"")).await;
    assert_eq!(socket.next().await, Frame::Pong(Vec::new()));
    let data = LARGEST - around + 2;
    assert_eq!(*lengths.lock(), [data, data, 0]);
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_needs_no_code_and_ends_what_comes_behind_it() {
    let edge = Edge::start().await;
    let mut without = edge.login("u").await;
    without.send_raw(&frame(0x88, b"")).await;
    assert_eq!(without.closed().await.0, 1000);
    assert_eq!(without.next().await, Frame::End);
    let mut behind = edge.login("u").await;
    let bytes = [frame(0x88, &[3, 0xE8]), frame(0x89, b"x"), frame(0x81, b"x")].concat();
    behind.send_raw(&bytes).await;
    assert_eq!(behind.closed().await.0, 1000);
    assert_eq!(behind.next().await, Frame::End);
    // Before the login, too.
    let mut early = edge.connect().await;
    early.send_raw(&frame(0x88, &[3, 0xE9])).await;
    assert_eq!(early.closed().await.0, 1001);
    assert_eq!(early.next().await, Frame::End);
    edge.is_empty().await;
    edge.stop().await;
}
