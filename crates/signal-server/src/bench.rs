//! The engine's private parts, set up for the micro-benchmarks: `benches/` measures what they do.
//!
//! Only with the feature `bench`, which nothing that is shipped has, and no part of the interface.
//! Each bench owns what it works on; its `run` is the work that is counted, and nothing else is.

use std::io::{self, Read as _};
use std::net::TcpListener;
use std::time::Duration;

use signal_core::v1::{Outgoing, To, Variant};
use slab::Slab;
use tokio::runtime::Runtime;

use crate::worker::delivery::write_message_frame;
use crate::worker::encryption::Form;
use crate::worker::fanout::{Fanout, Socket, Sockets};
use crate::worker::hub::{GroupKind, Hub, Slot};
use crate::worker::stream::Stream;
use crate::worker::wheel::{TICK, Tick, Wheel};

/// Bytes that a connection may have queued: none does.
const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// Connections with a user and three rooms each, ten to a room.
#[derive(Debug)]
pub struct HubBench {
    hub: Hub,
    connections: u32,
    rooms: Vec<String>,
}

/// Sockets to write to, and a batch of messages for them.
#[derive(Debug)]
pub struct FanoutBench {
    fanout: Fanout,
    sockets: Sockets,
    members: Vec<Slot>,
    peers: Vec<std::net::TcpStream>,
    scratch: Vec<u8>,
    data: String,
    runtime: Runtime,
}

/// Appends the frame of a message for a room.
pub fn write_frame(out: &mut Vec<u8>, variant: Variant, data: &str) {
    write_message_frame(out, variant, &outgoing(data));
}

fn encode(form: Form, outgoing: &Outgoing<'_>, out: &mut Vec<u8>) {
    let (Form::Clear(variant) | Form::Keyed(variant)) = form;
    write_message_frame(out, variant, outgoing);
}

fn outgoing(data: &str) -> Outgoing<'_> {
    Outgoing {
        event_json: "\"order.created\"",
        data: Some(data),
        to: Some(To::Room("branch:12")),
        id: None,
    }
}

/// A timer for each of many connections.
#[derive(Debug)]
pub struct WheelBench {
    wheel: Wheel,
    connections: u32,
}

// === impl HubBench ===

impl HubBench {
    /// A hub with so many connections.
    pub fn new(connections: u32) -> Self {
        let rooms = (0..connections / 10).map(|room| format!("branch:{room:05}")).collect();
        let mut bench = Self { hub: Hub::default(), connections: 0, rooms };
        bench.admit(connections);
        bench
    }

    /// Admits connections that join their groups.
    pub fn admit(&mut self, connections: u32) {
        for connection in 0..connections {
            let slot = Slot(connection);
            self.hub.admit(slot);
            self.hub.join(slot, GroupKind::User, &format!("u{connection:05}"));
            for place in 0..3 {
                let room = (connection as usize * 3 + place * 7) % self.rooms.len();
                self.hub.join(slot, GroupKind::Room, &self.rooms[room]);
            }
        }
        self.connections = connections;
    }

    /// Forgets every connection; returns how many groups that emptied.
    pub fn forget(&mut self) -> usize {
        let mut emptied = 0;
        for connection in 0..self.connections {
            self.hub.forget(Slot(connection), |_| emptied += 1);
        }
        emptied
    }
}

// === impl FanoutBench ===

impl FanoutBench {
    /// So many connected sockets that speak one variant.
    pub fn new(sockets: u32, variant: Variant) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut bench = Self {
            fanout: Fanout::new(OUTBOX_BYTES_MAX),
            sockets: Slab::new(),
            members: (0..sockets).map(Slot).collect(),
            peers: Vec::new(),
            scratch: vec![0; 64 * 1024],
            data: format!("{{\"pad\":\"{}\"}}", "x".repeat(210)),
            runtime,
        };
        for _ in 0..sockets {
            let peer = std::net::TcpStream::connect(address)?;
            peer.set_nonblocking(true)?;
            bench.peers.push(peer);
            let (stream, _) = listener.accept()?;
            stream.set_nonblocking(true)?;
            let stream = bench.runtime.block_on(async {
                let stream = tokio::net::TcpStream::from_std(stream)?;
                stream.writable().await?;
                Ok::<_, io::Error>(stream)
            })?;
            bench.sockets.insert(Socket::new(Stream::Plain(stream), variant));
        }
        Ok(bench)
    }

    /// Delivers a batch of messages to every socket.
    pub fn run_room(&mut self, messages: usize) {
        for _ in 0..messages {
            let outgoing = outgoing(&self.data);
            self.fanout.queue_all(&mut self.sockets, &self.members, &[], false, |form, out| {
                encode(form, &outgoing, out);
            });
        }
        self.fanout.flush(&mut self.sockets);
        while self.fanout.has_backlog() {
            self.fanout.flush(&mut self.sockets);
        }
    }

    /// Delivers a batch of messages, one to each socket.
    pub fn run_unicast(&mut self) {
        for slot in 0..self.members.len() {
            let outgoing = outgoing(&self.data);
            let member = &self.members[slot..=slot];
            self.fanout.queue_all(&mut self.sockets, member, &[], false, |form, out| {
                encode(form, &outgoing, out);
            });
        }
        self.fanout.flush(&mut self.sockets);
        while self.fanout.has_backlog() {
            self.fanout.flush(&mut self.sockets);
        }
    }

    /// Reads what was delivered, so that no socket ever blocks; returns the bytes.
    pub fn drain(&mut self) -> io::Result<usize> {
        let mut bytes = 0;
        for peer in &mut self.peers {
            loop {
                match peer.read(&mut self.scratch) {
                    Ok(count) => bytes += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(bytes)
    }
}

// === impl WheelBench ===

impl WheelBench {
    /// A wheel with a timer for each of so many connections.
    pub fn new(connections: u32) -> Self {
        let mut wheel = Wheel::default();
        for connection in 0..connections {
            wheel.insert(Slot(connection), Tick(1 + connection % 300));
        }
        Self { wheel, connections }
    }

    /// Lets thirty seconds pass, in which each timer fires once and is put back; returns how many did.
    pub fn run(&mut self) -> u32 {
        let mut fired = 0;
        let interval = Duration::from_secs(30);
        let end = self.wheel.now().after(interval.saturating_sub(TICK));
        self.wheel.advance(end, |wheel, slot, at| {
            fired += 1;
            wheel.insert(slot, at.after(interval));
        });
        fired.min(self.connections)
    }
}
