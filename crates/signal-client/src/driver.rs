//! The task that owns a client: it dials, lets a session run, and decides what comes next.
//!
//! Requests that come while there is no session are taken here: joins are remembered, anything else waits
//! or fails. It ends when the application closes it or does not listen any more, when the edge says so,
//! or, of a client that does not come back, with the first session.

use std::future::Future;

use serde_json::Value;
use tokio::sync::mpsc;
use tracing::debug;
use uuid::Uuid;

use crate::client::{Command, RequestError};
use crate::config::{Config, LoginReason};
use crate::event::{Event, Loss};
use crate::queue::Queue;
use crate::retry::{Attempts, Next};
use crate::rooms::Rooms;
use crate::session;
use crate::tls::Tls;

/// See the module.
pub(crate) struct Driver {
    pub(crate) config: Config,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) rooms: Rooms,
    pub(crate) queue: Queue,
    /// What credentials are needed for at the next login.
    pub(crate) reason: LoginReason,
    /// Those that were offered last.
    pub(crate) offered: Option<Value>,
    pub(crate) was_online: bool,
    /// Made at the first dial and kept, so that handshakes can resume.
    tls: Option<Tls>,
    attempts: Attempts,
}

// === impl Driver ===

impl Driver {
    pub(crate) fn new(
        config: Config,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let mut rooms = Rooms::default();
        rooms.want(&config.rooms);
        Self {
            queue: Queue::new(config.queue),
            config,
            commands,
            events,
            rooms,
            reason: LoginReason::Login,
            offered: None,
            was_online: false,
            tls: None,
            attempts: Attempts::default(),
        }
    }

    pub(crate) async fn run(mut self) {
        let loss = loop {
            // One per client, and as large as a connection is: it lives on the heap.
            let ended = Box::pin(session::run(&mut self)).await;
            self.rooms.reset();
            debug!(loss = %ended.loss, "connection ended");
            let next = self
                .config
                .reconnect
                .map_or(Next::End, |reconnect| self.attempts.next(reconnect, &ended, fraction()));
            let Next::Dial { delay, was_refused } = next else { break ended.loss };
            self.reason = if was_refused { LoginReason::Refused } else { LoginReason::Login };
            let recovering = Event::Recovering { loss: ended.loss, delay };
            let pause = async {
                self.emit(recovering).await?;
                self.meanwhile(tokio::time::sleep(delay)).await
            };
            if let Err(loss) = pause.await {
                break loss;
            }
        };
        let rooms = self.rooms.names();
        self.rooms.forget(&rooms, &RequestError::Closed);
        // Nobody may listen any more.
        let _ = self.events.send(Event::Closed(loss)).await;
    }

    /// What the handshake needs, if the address wants one.
    pub(crate) fn tls(&mut self) -> Result<Option<Tls>, Loss> {
        if self.config.url.scheme_str() == Some("wss") && self.tls.is_none() {
            let authorities = self.config.authorities.clone();
            self.tls = Some(Tls::new(authorities).map_err(Loss::Failed)?);
        }
        Ok(self.tls.clone())
    }

    /// Tells the application; fails if it does not listen any more.
    pub(crate) async fn emit(&self, event: Event) -> Result<(), Loss> {
        self.events.send(event).await.map_err(|_| Loss::Application)
    }

    /// Waits for something while there is no connection; fails if the application closes the client.
    pub(crate) async fn meanwhile<T>(
        &mut self,
        future: impl Future<Output = T>,
    ) -> Result<T, Loss> {
        tokio::pin!(future);
        loop {
            let command = tokio::select! {
                value = &mut future => return Ok(value),
                Some(command) = self.commands.recv() => command,
                () = self.events.closed() => return Err(Loss::Application),
            };
            match command {
                Command::Join { rooms, answer } => {
                    self.rooms.want(&rooms);
                    self.rooms.wait(rooms, answer);
                }
                Command::Leave { rooms } => self.rooms.forget(&rooms, &RequestError::Left),
                Command::Request(request) => self.queue.push(request),
                Command::Close => return Err(Loss::Application),
            }
        }
    }
}

/// A number from 0 to 1, evenly.
fn fraction() -> f64 {
    let (high, _) = Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(high >> 32).expect("32 bits are left")) / f64::from(u32::MAX)
}
