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
