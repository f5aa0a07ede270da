//! What a fan-out keeps while it is under way.

use tokio::net::TcpListener;

use super::*;

#[tokio::test]
async fn frames_for_one_client_each_stay_within_the_bound() {
    const FRAME_BYTES: usize = 100 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _peer = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut sockets = Sockets::new();
    let socket = sockets.insert(Socket::new(Stream::Plain(stream), Variant::Plain));
    let slot = Slot(u32::try_from(socket).unwrap());
    let mut fanout = Fanout::new(1 << 30);
    for _ in 0..100 {
        let range = fanout.encode(|out| out.resize(out.len() + FRAME_BYTES, 0));
        fanout.queue(&mut sockets, slot, range, true);
        fanout.relieve(&mut sockets);
        assert!(fanout.end() as usize <= SINGLES_BYTES_MAX);
    }
    fanout.flush(&mut sockets);
    let sent = usize::try_from(sockets[socket].sent_bytes).unwrap();
    assert_eq!(sent + sockets[socket].queued_bytes(), 100 * FRAME_BYTES, "and all of them go out");
}

/// As many connected sockets; their peers are kept so that they stay connected.
async fn sockets(count: usize) -> (Sockets, Vec<Slot>, Vec<tokio::net::TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut sockets, mut slots, mut peers) = (Sockets::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        peers.push(tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        let socket = sockets.insert(Socket::new(Stream::Plain(stream), Variant::Plain));
        slots.push(Slot(u32::try_from(socket).unwrap()));
    }
    (sockets, slots, peers)
}

#[tokio::test]
async fn a_message_to_few_is_not_held_up_by_one_to_many_of_the_same_turn() {
    let (mut sockets, slots, _peers) = sockets(3 * SMALL_MEMBERS_MAX).await;
    let (single, members) = slots.split_last().unwrap();
    let mut fanout = Fanout::new(1 << 20);
    let encode = |_, out: &mut Vec<u8>| out.extend_from_slice(b"to many");
    fanout.queue_all(&mut sockets, members, &[], false, encode);
    let range = fanout.encode(|out| out.extend_from_slice(b"to one"));
    fanout.queue(&mut sockets, *single, range, true);
    fanout.flush(&mut sockets);
    assert_eq!(sockets[single.0 as usize].sent_bytes, 6, "it is written in this turn");
    assert!(fanout.has_backlog(), "the others are not all");
    while fanout.has_backlog() {
        fanout.flush(&mut sockets);
    }
    for slot in members {
        assert_eq!(sockets[slot.0 as usize].sent_bytes, 7);
    }
}
