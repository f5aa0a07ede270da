//! The load driver: every client and the producer, on one thread and one epoll.
//!
//! Owns the clients' sockets, the publisher and the clock of the messages. It must cost little
//! itself (large reads, fixed message layout, no allocation per message) and must never interpret
//! more than it checks: each client's sequence numbers, and the time a message took. Everything
//! under way is bounded by the window, or by the publisher's queue.

mod connection;
mod dialect;
mod histogram;
mod ingest;
pub mod payload;
mod privacy;
mod producer;
mod publisher;
mod sequence;
mod share;
mod tally;
mod ticker;
mod turns;
mod window;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use self::connection::{Connection, Phase};
pub use self::dialect::Dialect;
pub use self::histogram::Histogram;
use self::payload::{Audience, MARKER_EVENT, Template};
pub use self::privacy::Privacy;
use self::privacy::Seals;
pub use self::producer::{Producer, Route};
use self::publisher::Publisher;
use self::tally::Tally;
pub use self::tally::{Integrity, Latency, Progress};
use self::ticker::Ticker;
pub use self::turns::Turns;
use self::window::{Recipients, Window};
use crate::clock::Clock;
use crate::websocket;

/// One read takes at most this.
const READ_BYTES: usize = 256 * 1024;

/// Sockets handled per `epoll_wait`: all of the largest audience.
const EVENTS_MAX: usize = 1024;

/// Handshakes under way at once: fewer than any listen queue holds.
const HANDSHAKES_MAX: usize = 256;

/// Longest wait for clients to connect, for markers, and for the last messages.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between one round of markers and the next.
const MARKER_INTERVAL: Duration = Duration::from_millis(100);

const PUBLISHER: Token = Token(0);
const TICKER: Token = Token(1);
const COMMANDS: Token = Token(2);
const FIRST_CONNECTION: usize = 3;

/// Why a load could not be driven.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The system refused something.
    #[error("system: {0}")]
    System(#[from] io::Error),
    /// The server did not upgrade a connection.
    #[error("upgrade refused: {0}")]
    UpgradeRefused(String),
    /// The server closed a connection.
    #[error("a client was disconnected")]
    Disconnected,
    /// The server sent a Close frame.
    #[error("a client was closed with code {0}")]
    Closed(u16),
    /// The server answered something else than `connected`.
    #[error("unexpected message from the server: {0}")]
    Unexpected(String),
    /// Something did not happen in time.
    #[error("gave up waiting for {0}")]
    Timeout(&'static str),
    /// Redis closed the producer's connection.
    #[error("redis closed the publisher's connection")]
    PublisherClosed,
    /// Redis refused to publish.
    #[error("redis refused to publish: {0}")]
    PublishRefused(String),
    /// Redis takes less than the load publishes.
    #[error("redis cannot take the load")]
    PublisherOverrun,
}

/// How fast messages are published.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many messages at every tick.
    Ticks {
        /// Time between ticks.
        interval: Duration,
        /// Messages per tick.
        messages: usize,
    },
    /// So many messages under way at all times.
    Window {
        /// Messages under way.
        messages: usize,
    },
}

/// A load: to whom, and how fast.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Who each message is for.
    pub audience: Audience,
    /// How fast they come.
    pub pace: Pace,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    poll: Poll,
    server: SocketAddr,
    connections: Vec<Connection>,
    publisher: Publisher,
    privacy: Privacy,
    dialect: Dialect,
    seals: Seals,
    tally: Tally,
    clock: Clock,
    buffer: Box<[u8]>,
    /// Handed to `epoll_wait`, and emptied by [`Driver::step`].
    events: Events,
    /// Clients that are not authenticated yet.
    handshakes: usize,
    /// Clients that still lack a marker.
    unmarked: usize,
    /// Added to a client's number, for its user id.
    first_user: u32,
    /// The address that the first client connects from.
    first_address: Ipv4Addr,
    /// Clients connect from one address after another, as many from each.
    per_address: usize,
    /// Connections ever opened.
    opened: usize,
    /// Clients whose ping was answered.
    ponged: Vec<usize>,
    /// Bursts of clients are under way.
    bursting: bool,
    /// What [`Driver::await_command`] waits for is there.
    commanded: bool,
}

/// A load under way: what [`Driver::run`] continues.
#[derive(Debug)]
pub struct Running {
    load: Load,
    template: Template,
    ticker: Option<Ticker>,
    /// Targets are the room, or each user, or each of the rooms.
    turns: Turns,
    crowd: Option<Crowd>,
}

/// A room beside the load, whose members are not this driver's.
#[derive(Debug)]
struct Crowd {
    template: Template,
    /// Ticks from one message to the next.
    period: usize,
    ticks: usize,
    sent: u64,
}

// === impl Driver ===

impl Driver {
    /// Connects the producer to Redis; clients come with [`Driver::connect`].
    pub fn new(server_port: u16, redis_port: u16, privacy: Privacy) -> Result<Self, DriverError> {
        let poll = Poll::new()?;
        let mut publisher = Publisher::connect(loopback(redis_port))?;
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(publisher.stream(), PUBLISHER, both)?;
        Ok(Self {
            poll,
            server: loopback(server_port),
            connections: Vec::new(),
            publisher,
            privacy,
            dialect: Dialect::default(),
            seals: Seals::default(),
            tally: Tally::default(),
            clock: Clock::start(),
            buffer: vec![0; READ_BYTES].into(),
            events: Events::with_capacity(EVENTS_MAX),
            handshakes: 0,
            unmarked: 0,
            first_user: 0,
            first_address: Ipv4Addr::LOCALHOST,
            per_address: usize::MAX,
            opened: 0,
            ponged: Vec::new(),
            bursting: false,
            commanded: false,
        })
    }

    /// Speaks as another server wants it.
    pub fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Gives clients user ids from this number on.
    pub fn number_users_from(&mut self, first: u32) {
        self.first_user = first;
    }

    /// Lets so many clients connect from each address of 127.0.0.0/8, so that ports do not run out.
    pub fn spread(&mut self, per_address: usize) {
        self.per_address = per_address;
    }

    /// Drops all clients.
    pub fn disconnect(&mut self) {
        self.connections.clear();
    }

    /// Connects and authenticates clients until there are `count`.
    pub fn connect(&mut self, count: usize) -> Result<(), DriverError> {
        let deadline = self.clock.elapsed() + PATIENCE;
        self.connections.reserve_exact(count.saturating_sub(self.connections.len()));
        while self.connections.len() < count || self.handshakes > 0 {
            while self.connections.len() < count && self.handshakes < HANDSHAKES_MAX {
                let mut connection =
                    Connection::open(self.source(), self.server, self.privacy, self.dialect)?;
                self.opened += 1;
                let token = Token(self.connections.len() + FIRST_CONNECTION);
                let both = Interest::READABLE | Interest::WRITABLE;
                self.poll.registry().register(connection.stream(), token, both)?;
                self.connections.push(connection);
                self.handshakes += 1;
            }
            self.step(deadline)?;
            if self.clock.elapsed() > deadline {
                return Err(DriverError::Timeout("clients to connect"));
            }
        }
        Ok(())
    }

    /// Makes every client a member of the room, or of its room, if the audience has any.
    pub fn join(&mut self, audience: Audience) -> Result<(), DriverError> {
        for (client, connection) in (0_u32..).zip(&mut self.connections) {
            let room = match audience {
                Audience::Room => payload::ROOM.to_owned(),
                Audience::Rooms => payload::room_of(client),
                Audience::User => return Ok(()),
            };
            connection.send_text(&self.dialect.join(&room))?;
        }
        Ok(())
    }

    /// Publishes markers until each client has had one: nothing that is published to the audience
    /// after this is missed.
    pub fn await_delivery(&mut self, audience: Audience) -> Result<(), DriverError> {
        let deadline = self.clock.elapsed() + PATIENCE;
        self.unmarked = self.connections.len();
        while self.unmarked > 0 {
            self.publish_markers(audience);
            self.publisher.flush()?;
            let round = self.clock.elapsed() + MARKER_INTERVAL;
            while self.unmarked > 0 && self.clock.elapsed() < round {
                self.step(round)?;
            }
            if self.clock.elapsed() > deadline {
                return Err(DriverError::Timeout("markers to arrive"));
            }
        }
        Ok(())
    }

    /// Keeps the connections alive for a while, without load.
    pub fn idle(&mut self, duration: Duration) -> Result<(), DriverError> {
        let end = self.clock.elapsed() + duration;
        while self.clock.elapsed() < end {
            self.step(end)?;
        }
        Ok(())
    }

    /// Prepares a load; nothing is published until [`Driver::run`].
    pub fn start(&mut self, load: Load) -> Result<Running, DriverError> {
        let (targets, recipients) = match load.audience {
            Audience::Room => (1, Recipients::All(self.connections.len())),
            Audience::User => (self.connections.len(), Recipients::Some(1)),
            Audience::Rooms => {
                let rooms = self.connections.len() / payload::ROOM_MEMBERS;
                (rooms, Recipients::Some(payload::ROOM_MEMBERS))
            }
        };
        let ticker = match load.pace {
            Pace::Ticks { interval, .. } => {
                Some(Ticker::start(interval, self.poll.registry(), TICKER)?)
            }
            Pace::Window { messages } => {
                self.tally.window = Some(Window::new(messages, recipients));
                None
            }
        };
        let template = Template::new(self.dialect, load.audience);
        Ok(Running { load, template, ticker, turns: Turns::among(targets), crowd: None })
    }

    /// Drives a load for a while.
    pub fn run(&mut self, running: &mut Running, duration: Duration) -> Result<(), DriverError> {
        let end = self.clock.elapsed() + duration;
        while self.clock.elapsed() < end {
            let due = match running.load.pace {
                Pace::Window { .. } => self.tally.window.as_ref().map_or(0, Window::free),
                Pace::Ticks { messages, .. } => {
                    let ticks = running.elapsed_ticks()?;
                    self.publish_to_crowd(running, ticks);
                    messages * ticks
                }
            };
            self.publish(running, due);
            self.publisher.flush()?;
            self.step(end)?;
        }
        Ok(())
    }

    /// Waits for what is still under way, as long as it makes sense to.
    pub fn drain(&mut self, running: &Running) -> Result<(), DriverError> {
        let deadline = self.clock.elapsed() + PATIENCE;
        let expected = self.expected(running);
        while self.tally.progress.deliveries < expected && self.clock.elapsed() < deadline {
            self.publisher.flush()?;
            self.step(deadline)?;
        }
        Ok(())
    }

    /// What was lost, duplicated or reordered since the load started.
    pub fn integrity(&self, running: &Running) -> Integrity {
        let sent_to = |client: usize| match running.load.audience {
            Audience::Room => running.turns.sent(0),
            Audience::User => running.turns.sent(client),
            Audience::Rooms => running.turns.sent(client / payload::ROOM_MEMBERS),
        };
        let clients = self.connections.iter().enumerate();
        let lost = clients.map(|(client, connection)| connection.sequence.lost(sent_to(client)));
        Integrity { lost: lost.sum(), ..self.tally.integrity }
    }

    /// Time since the driver was made.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Deliveries and reads so far.
    pub fn progress(&self) -> Progress {
        self.tally.progress
    }

    /// Begins to keep the time that each message takes.
    pub fn record_latency(&mut self) {
        self.tally.record_latency();
    }

    /// Ends it, and sums it up.
    pub fn take_latency(&mut self) -> Option<Latency> {
        self.tally.take_latency()
    }

    fn expected(&self, running: &Running) -> u64 {
        let sent = running.turns.total();
        match running.load.audience {
            Audience::Room => sent * self.connections.len() as u64,
            Audience::User => sent,
            Audience::Rooms => sent * payload::ROOM_MEMBERS as u64,
        }
    }

    fn source(&self) -> Ipv4Addr {
        let address = u32::try_from(self.opened / self.per_address % 200).expect("below 200");
        Ipv4Addr::from_bits(self.first_address.to_bits() + address)
    }

    fn publish_to_crowd(&mut self, running: &mut Running, ticks: usize) {
        let Some(crowd) = &mut running.crowd else { return };
        crowd.ticks += ticks;
        if crowd.ticks >= crowd.period {
            crowd.ticks -= crowd.period;
            let now = self.clock.micros();
            crowd.template.write(&mut self.publisher.outgoing, crowd.sent, now, 0);
            crowd.sent += 1;
        }
    }

    fn publish(&mut self, running: &mut Running, count: usize) {
        let now = if count > 0 { self.clock.micros() } else { 0 };
        for _ in 0..count {
            let (target, sequence) = running.turns.next();
            let outgoing = &mut self.publisher.outgoing;
            running.template.write(outgoing, sequence, now, number(target));
            if let Some(window) = &mut self.tally.window {
                window.published();
            }
        }
    }

    /// One marker for each target that somebody still waits for.
    fn publish_markers(&mut self, audience: Audience) {
        let mut last = None;
        for (client, connection) in (0_u32..).zip(&self.connections) {
            let target = match audience {
                Audience::Room => 0,
                Audience::Rooms => payload::room_index(client),
                Audience::User => client,
            };
            // The clients of a room follow one another.
            if connection.marked || last == Some(target) {
                continue;
            }
            last = Some(target);
            let command = self.dialect.command(audience, target, MARKER_EVENT, "null");
            self.publisher.publish(&command);
        }
    }

    /// Waits for events until `deadline` at most, and handles them.
    fn step(&mut self, deadline: Duration) -> Result<(), DriverError> {
        let timeout = deadline.saturating_sub(self.clock.elapsed());
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                PUBLISHER if event.is_readable() => {
                    self.publisher.read_replies(&mut self.buffer)?;
                }
                // The tick is counted by the load; the publisher is flushed after each step.
                TICKER | PUBLISHER => {}
                COMMANDS => self.commanded = true,
                Token(token) => {
                    let client = token - FIRST_CONNECTION;
                    if self.connections[client].phase == Phase::Connecting {
                        self.connections[client].upgrade(self.server)?;
                    }
                    if event.is_readable() {
                        self.read(client)?;
                    }
                }
            }
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, client: usize) -> Result<(), DriverError> {
        let now = if self.tally.keeps_latency() { self.clock.micros() } else { 0 };
        loop {
            let connection = &mut self.connections[client];
            let (filled, more) = connection.fill(&mut self.buffer)?;
            let mut rest = &self.buffer[..filled];
            if connection.phase == Phase::Upgrading {
                let number = self.first_user + number(client);
                rest = &rest[connection.finish_upgrade(rest, number)?..];
            }
            if connection.phase != Phase::Upgrading {
                self.tally.progress.reads += 1;
                while let Some(frame) = connection::next_frame(rest) {
                    rest = &rest[frame.length..];
                    match (frame.opcode, connection.phase) {
                        (websocket::OPCODE_TEXT, Phase::Ready) => {
                            let keys = connection.keys.as_deref_mut();
                            if let Some(text) = self.seals.open(keys, frame.payload)? {
                                for text in self.dialect.messages(text) {
                                    self.unmarked -= self.tally.take_text(
                                        connection,
                                        text,
                                        self.dialect,
                                        now,
                                    )?;
                                }
                            }
                        }
                        (websocket::OPCODE_TEXT, _) => {
                            let number = self.first_user + number(client);
                            if connection.log_in(frame.payload, number)? {
                                self.handshakes -= 1;
                            }
                        }
                        (websocket::OPCODE_PING, _) => connection.send_pong(frame.payload)?,
                        (websocket::OPCODE_PONG, _) => self.ponged.push(client),
                        (websocket::OPCODE_CLOSE, _) => return Err(closed(frame.payload)),
                        _ => {}
                    }
                }
            }
            connection.keep(rest);
            if !more {
                return Ok(());
            }
        }
    }
}

// === impl Running ===

impl Running {
    fn elapsed_ticks(&self) -> Result<usize, DriverError> {
        let ticks = self.ticker.as_ref().map_or(Ok(0), Ticker::elapsed_ticks)?;
        Ok(usize::try_from(ticks).unwrap_or(usize::MAX))
    }

    /// Also publishes to [`payload::ROOM`], whose members others drive: one message every `period`
    /// ticks, or no more.
    pub fn set_crowd(&mut self, period: Option<usize>) {
        let template = || Template::new(Dialect::Signal, Audience::Room);
        let sent = self.crowd.as_ref().map_or(0, |crowd| crowd.sent);
        self.crowd = period.map(|period| Crowd { template: template(), period, ticks: 0, sent });
    }
}

fn number(target: usize) -> u32 {
    u32::try_from(target).expect("targets are fewer than sockets")
}

fn closed(payload: &[u8]) -> DriverError {
    DriverError::Closed(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
