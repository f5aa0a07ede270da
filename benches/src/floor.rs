//! The floor: the smallest single-threaded epoll program that does Signal's work.
//!
//! Owns one epoll, one listener, one Redis connection, and a table of clients and channels. It
//! does what costs CPU per connection and per delivery, and nothing else: no limits, no liveness,
//! no reconnect, no policy, no unsubscribe. It must never become cleverer than the loop it stands
//! for: one `write` per socket and message ([`Delivery::Write`]), or one `writev` per socket of
//! all that one read of Redis brought ([`Delivery::Coalesce`]). What is queued for a client that
//! does not read is bounded by `client::BACKLOG_BYTES_MAX`.

mod bus;
mod client;
mod fanout;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use hashbrown::HashMap;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use self::bus::Bus;
use self::client::{Client, Request};
use self::fanout::Fanout;

/// Sockets handled per `epoll_wait`: as many as the largest row has busy ones.
const EVENTS_MAX: usize = 1024;

/// Where client bytes are read to; clients send little.
const SCRATCH_BYTES: usize = 16 * 1024;

/// The channels that every client of Signal is on, whatever it asks for.
const COMMON_CHANNELS: [&str; 3] =
    ["ws:broadcast", "ws:room:ws-default", "ws:room:ws-notification"];

const LISTENER: Token = Token(0);
const BUS: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// How messages go to sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// One `write` per socket and message: the bare loop.
    Write,
    /// One `writev` per socket of everything that one read of Redis brought for it.
    Coalesce,
}

/// What the floor is told on its command line.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "floor", about = "The smallest epoll program that does Signal's work")]
pub struct Options {
    /// Port to listen on, on 127.0.0.1.
    #[arg(long)]
    pub port: u16,
    /// Port of Redis, on 127.0.0.1.
    #[arg(long)]
    pub redis: u16,
    /// Write once per socket and batch, instead of once per socket and message.
    #[arg(long)]
    pub coalesce: bool,
}

/// Why the floor stopped.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// The system refused something.
    #[error("system: {0}")]
    System(#[from] io::Error),
    /// Redis said something that is not understood.
    #[error("redis: {0}")]
    Redis(#[from] crate::resp::RespError),
    /// Redis closed the connection.
    #[error("redis closed the connection")]
    RedisClosed,
}

/// Serves until Redis or the system fails.
pub fn run(options: &Options) -> Result<(), FloorError> {
    let mut poll = Poll::new()?;
    let mut floor = Floor::bind(options, &poll)?;
    let mut events = Events::with_capacity(EVENTS_MAX);
    writeln!(io::stdout(), "listening on 127.0.0.1:{}", options.port)?;
    loop {
        match poll.poll(&mut events, None) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&poll)?,
                BUS => floor.on_bus(event.is_readable())?,
                Token(token) => {
                    floor.on_client(token - FIRST_CLIENT, event.is_readable(), event.is_writable());
                }
            }
        }
        floor.bus.flush()?;
    }
}

#[derive(Debug)]
struct Floor {
    listener: TcpListener,
    bus: Bus,
    clients: Slab<Client>,
    /// Channel name to its place in `members`.
    channels: HashMap<Box<[u8]>, u32>,
    /// Clients of each channel.
    members: Vec<Vec<u32>>,
    fanout: Fanout,
    scratch: Box<[u8]>,
}

// === impl Floor ===

impl Floor {
    fn bind(options: &Options, poll: &Poll) -> io::Result<Self> {
        let mut listener = TcpListener::bind(loopback(options.port))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let mut bus = Bus::connect(loopback(options.redis))?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(bus.stream(), BUS, both)?;
        let delivery = if options.coalesce { Delivery::Coalesce } else { Delivery::Write };
        Ok(Self {
            listener,
            bus,
            clients: Slab::new(),
            channels: HashMap::new(),
            members: Vec::new(),
            fanout: Fanout::new(delivery),
            scratch: vec![0; SCRATCH_BYTES].into(),
        })
    }

    fn accept(&mut self, poll: &Poll) -> io::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let entry = self.clients.vacant_entry();
            let token = Token(entry.key() + FIRST_CLIENT);
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, token, both)?;
            entry.insert(Client::new(stream));
        }
    }

    /// Delivers everything that Redis has for us. A batch is what one read brought.
    fn on_bus(&mut self, readable: bool) -> Result<(), FloorError> {
        let mut more = readable;
        while more {
            more = self.bus.fill()?;
            while let Some(push) = self.bus.next_push()? {
                if push.kind != b"message" {
                    continue;
                }
                if let Some(channel) = self.channels.get(push.channel) {
                    let members = &self.members[*channel as usize];
                    self.fanout.deliver(push.payload, members, &mut self.clients);
                }
            }
            self.fanout.end_batch(&mut self.clients);
        }
        Ok(())
    }

    fn on_client(&mut self, slot: usize, readable: bool, writable: bool) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if writable {
            client.flush_backlog();
        }
        let mut requests = Vec::new();
        let open = if readable { client.read(&mut self.scratch, &mut requests) } else { true };
        for request in requests {
            self.on_request(slot, request);
        }
        if !open {
            self.remove(slot);
        }
    }

    fn on_request(&mut self, slot: usize, request: Request) {
        let client_number = u32::try_from(slot).expect("there are fewer sockets than u32 counts");
        match request {
            Request::Authenticate { user } => {
                let client = &mut self.clients[slot];
                let id = client.authenticate(client_number, &user);
                for channel in COMMON_CHANNELS {
                    self.join(client_number, channel);
                }
                self.join(client_number, &format!("ws:client:{id}"));
                self.join(client_number, &format!("ws:room:{id}"));
                self.join(client_number, &format!("ws:user:{user}"));
            }
            Request::Join { rooms } => {
                for room in rooms {
                    self.join(client_number, &format!("ws:room:{room}"));
                }
            }
        }
    }

    fn join(&mut self, client: u32, name: &str) {
        let channel = if let Some(channel) = self.channels.get(name.as_bytes()) {
            *channel
        } else {
            let next = u32::try_from(self.members.len()).expect("channels are bounded by clients");
            self.members.push(Vec::new());
            self.channels.insert(name.as_bytes().into(), next);
            self.bus.subscribe(name);
            next
        };
        let members = &mut self.members[channel as usize];
        // One entry is what most channels ever get; `push` would reserve four.
        members.reserve_exact(usize::from(members.is_empty()));
        members.push(client);
        self.clients[client as usize].channels.push(channel);
    }

    fn remove(&mut self, slot: usize) {
        let client = self.clients.remove(slot);
        for channel in &client.channels {
            let members = &mut self.members[*channel as usize];
            if let Some(position) = members.iter().position(|member| *member as usize == slot) {
                members.swap_remove(position);
            }
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
