//! One connection's life: dial, log in, join again, and then messages and requests until it ends.
//!
//! It owns the socket, the requests that wait for an answer, and when the link was last heard. A link
//! that was silent is asked with a heartbeat, and is dead if it does not answer. What cannot be read
//! ends the connection, since whoever comes back is told to load anew.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use signal_core::v1::{Incoming, Variant};
use tokio::time::{Instant, sleep_until, timeout};

use crate::client::{Answer, Command, RequestError};
use crate::config::{LoginError, LoginFuture, LoginReason};
use crate::driver::Driver;
use crate::event::{Event, Loss, Message};
use crate::keys::Keys;
use crate::queue::Request;
use crate::retry::Ended;
use crate::rooms::Status;
use crate::socket::{Input, Socket};

/// From the dial to being online.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Silence after which the link is asked whether it lives.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A link that does not answer for this long is dead.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Requests that wait for an answer.
const PENDING_MAX: usize = 1024;

/// What is done with an answer.
enum Pending {
    Request(Answer),
    /// A join; the first of a connection is for all rooms, and then it is online.
    Join {
        rooms: Vec<String>,
        is_first: bool,
    },
    /// What is left needs no key any more.
    Leave(Vec<String>),
    Refresh,
    /// Nobody waits.
    Silent,
}

enum Step {
    Input(Input),
    Command(Command),
    Credentials(Result<serde_json::Value, LoginError>),
    Deadline,
    Unheard,
}

#[derive(Deserialize)]
struct Joined {
    rooms: Vec<String>,
    denied: Vec<String>,
    #[serde(default)]
    degraded: bool,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Resync {
    rooms: Option<Vec<String>>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Goodbye {
    retry_after_ms: u64,
}

struct Session<'driver> {
    driver: &'driver mut Driver,
    socket: Socket,
    pending: HashMap<u64, Pending>,
    requests: u64,
    connected: Option<Box<RawValue>>,
    keys: Keys,
    opened: Instant,
    online_since: Option<Instant>,
    heard: Instant,
    /// When the link was asked whether it lives, if it has not answered.
    asked: Option<Instant>,
    refreshing: Option<LoginFuture>,
    retry_after: Option<Duration>,
    is_unjudged: bool,
}

/// Runs a connection to its end.
pub(crate) async fn run(driver: &mut Driver) -> Ended {
    let (socket, keys) = match Box::pin(dial(driver)).await {
        Ok(dialled) => dialled,
        Err(ended) => return ended,
    };
    let now = Instant::now();
    let mut session = Session {
        driver,
        socket,
        pending: HashMap::new(),
        requests: 0,
        connected: None,
        keys,
        opened: now,
        online_since: None,
        heard: now,
        asked: None,
        refreshing: None,
        retry_after: None,
        is_unjudged: false,
    };
    let loss = session.serve().await;
    let Session { socket, pending, online_since, retry_after, is_unjudged, .. } = session;
    for pending in pending.into_values() {
        if let Pending::Request(answer) = pending {
            // Who asked may have given up.
            let _ = answer.send(Err(RequestError::Disconnected));
        }
    }
    if loss == Loss::Application {
        socket.close().await;
    }
    let online_for = online_since.map(|since| since.elapsed());
    Ended { online_for, retry_after, is_unjudged, ..Ended::with(loss) }
}

/// Credentials first: they may take their time, which a login may not.
async fn dial(driver: &mut Driver) -> Result<(Socket, Keys), Ended> {
    let login = (driver.config.login)(driver.reason);
    let late = |what: &str| Loss::Failed(format!("{what} in time"));
    let credentials = driver.meanwhile(timeout(LOGIN_TIMEOUT, login)).await.map_err(Ended::with)?;
    let credentials = match credentials {
        Ok(Ok(credentials)) => credentials,
        Ok(Err(error)) => return Err(Ended::with(Loss::Failed(error.to_string()))),
        Err(_) => return Err(Ended::with(late("no credentials"))),
    };
    if driver.reason == LoginReason::Refused && driver.offered.as_ref() == Some(&credentials) {
        let loss = Loss::Failed("the credentials were refused, and there are no others".to_owned());
        return Err(Ended { is_final: true, ..Ended::with(loss) });
    }
    let (url, variant) = (driver.config.url.clone(), driver.config.variant);
    let tls = driver.tls().map_err(|loss| Ended { is_final: true, ..Ended::with(loss) })?;
    let dialling = Box::pin(timeout(LOGIN_TIMEOUT, Socket::dial(&url, variant, tls.as_ref())));
    let dialled = driver.meanwhile(dialling).await;
    let mut socket = match dialled.map_err(Ended::with)? {
        Ok(dialled) => dialled.map_err(Ended::with)?,
        Err(_) => return Err(Ended::with(late("no connection"))),
    };
    let mut keys = Keys::default();
    let mut data = credentials.clone();
    if driver.config.is_encrypted {
        keys.offer(&mut data);
    }
    driver.offered = Some(credentials);
    let data = data.to_string();
    socket.send(variant.request("authenticate", Some(&data), None)).await.map_err(Ended::with)?;
    Ok((socket, keys))
}

// === impl Session ===

impl Session<'_> {
    async fn serve(&mut self) -> Loss {
        loop {
            let outcome = match self.next_step().await {
                Step::Input(Input::Message(payload)) => self.on_payload(&payload).await,
                Step::Input(Input::Control(opcode, payload)) => {
                    self.socket.answer(opcode, payload).await
                }
                Step::Input(Input::Ended(loss)) => Err(loss),
                Step::Command(command) => self.on_command(command).await,
                Step::Credentials(credentials) => self.on_credentials(credentials).await,
                Step::Deadline => self.on_deadline().await,
                Step::Unheard => Err(Loss::Application),
            };
            if let Err(loss) = outcome {
                return loss;
            }
        }
    }

    /// Every branch is cancel safe: what does not happen now happens next time.
    async fn next_step(&mut self) -> Step {
        let deadline = match (self.online_since, self.asked) {
            (None, _) => self.opened + LOGIN_TIMEOUT,
            (Some(_), Some(asked)) => asked + ANSWER_MAX,
            (Some(_), None) => self.heard + SILENCE_MAX,
        };
        let refreshing = async {
            match &mut self.refreshing {
                Some(login) => login.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            input = self.socket.next() => Step::Input(input),
            Some(command) = self.driver.commands.recv() => Step::Command(command),
            credentials = refreshing => Step::Credentials(credentials),
            () = self.driver.events.closed() => Step::Unheard,
            () = sleep_until(deadline) => Step::Deadline,
        }
    }

    async fn on_deadline(&mut self) -> Result<(), Loss> {
        if self.online_since.is_none() {
            return Err(Loss::Failed("no login in time".to_owned()));
        }
        if self.asked.is_some() {
            return Err(Loss::Failed("the connection does not answer".to_owned()));
        }
        self.asked = Some(Instant::now());
        self.ask("heartbeat", None, Pending::Silent).await
    }

    async fn on_command(&mut self, command: Command) -> Result<(), Loss> {
        match command {
            Command::Join { rooms, answer } => {
                let fresh = self.driver.rooms.want(&rooms);
                self.driver.rooms.wait(rooms, answer);
                if fresh.is_empty() || self.connected.is_none() {
                    return Ok(());
                }
                self.join(fresh, false).await
            }
            Command::Leave { rooms } => {
                self.driver.rooms.forget(&rooms, &RequestError::Left);
                if self.connected.is_none() {
                    return Ok(());
                }
                let data = json!({ "rooms": rooms }).to_string();
                self.ask("leave", Some(&data), Pending::Leave(rooms)).await
            }
            Command::Request(request) if self.online_since.is_some() => self.request(request).await,
            Command::Request(request) => {
                self.driver.queue.push(request);
                Ok(())
            }
            Command::Close => Err(Loss::Application),
        }
    }

    async fn on_credentials(
        &mut self,
        credentials: Result<serde_json::Value, LoginError>,
    ) -> Result<(), Loss> {
        self.refreshing = None;
        match credentials {
            Ok(credentials) => {
                let data = credentials.to_string();
                self.driver.offered = Some(credentials);
                self.ask("refresh", Some(&data), Pending::Refresh).await
            }
            Err(error) => {
                let (code, message) = ("refresh_failed".to_owned(), error.to_string());
                self.driver.emit(Event::Error { code, message }).await
            }
        }
    }

    async fn on_payload(&mut self, payload: &[u8]) -> Result<(), Loss> {
        self.heard = Instant::now();
        self.asked = None;
        let message = read_message(self.driver.config.variant, payload)?;
        match self.keys.open(&message).map_err(Loss::Failed)? {
            None => self.on_message(message).await,
            // What was sealed is JSON text on either protocol.
            Some(text) => self.on_message(read_message(Variant::V1Json, text.as_bytes())?).await,
        }
    }

    async fn on_message(&mut self, message: Incoming<'_>) -> Result<(), Loss> {
        let Incoming { event, data, to, id } = message;
        // What is delivered says to whom it is, so that no producer can speak for the edge.
        if let Some(to) = to {
            let data = data.map(raw).transpose()?;
            let id = id.as_deref().map(raw).transpose()?;
            let message = Message { event: event.into_owned(), data, to: to.into(), id };
            return self.driver.emit(Event::Message(message)).await;
        }
        let (data, id) = (data.unwrap_or("null"), id.as_deref());
        match &*event {
            "connected" => {
                self.keys.accept(data).map_err(Loss::Failed)?;
                self.connected = Some(raw(data)?);
                let rooms = self.driver.rooms.names();
                if rooms.is_empty() { self.go_online().await } else { self.join(rooms, true).await }
            }
            "ack" => match self.take(id) {
                Some(pending) => self.on_ack(pending, data).await,
                None => Ok(()),
            },
            "error" => {
                let refusal = read(data)?;
                match self.take(id) {
                    Some(pending) => self.on_refusal(pending, refusal).await,
                    None => self.report(refusal).await,
                }
            }
            "roomkey" => self.keys.keep(data).map_err(Loss::Failed),
            "resync" => {
                let Resync { rooms, reason } = read(data)?;
                self.driver.rooms.confirm(rooms.as_deref());
                self.driver.emit(Event::Resync { rooms, reason }).await
            }
            "expiring" => {
                self.refreshing = Some((self.driver.config.login)(LoginReason::Refresh));
                Ok(())
            }
            "goodbye" => {
                let Goodbye { retry_after_ms } = read(data)?;
                self.retry_after = Some(Duration::from_millis(retry_after_ms));
                Ok(())
            }
            // From an edge that is newer than this client.
            _ => Ok(()),
        }
    }

    async fn on_ack(&mut self, pending: Pending, data: &str) -> Result<(), Loss> {
        match pending {
            Pending::Request(answer) => {
                // Who asked may have given up.
                let _ = answer.send(Ok(raw(data)?));
                Ok(())
            }
            Pending::Join { is_first, .. } => {
                let Joined { rooms, denied, degraded } = read(data)?;
                let status = if degraded { Status::Degraded } else { Status::Joined };
                self.driver.rooms.joined(&rooms, status);
                if !denied.is_empty() {
                    self.driver.rooms.forget(&denied, &RequestError::Denied(denied.clone()));
                    self.driver.emit(Event::Denied(denied)).await?;
                }
                if is_first { self.go_online().await } else { Ok(()) }
            }
            // Rooms that the new credentials do not allow have been left: asking again tells which.
            Pending::Refresh => match self.driver.rooms.names() {
                rooms if rooms.is_empty() => Ok(()),
                rooms => self.join(rooms, false).await,
            },
            Pending::Leave(rooms) => {
                for room in rooms.iter().filter(|room| !self.driver.rooms.is_wanted(room)) {
                    self.keys.forget(room);
                }
                Ok(())
            }
            Pending::Silent => Ok(()),
        }
    }

    async fn on_refusal(&mut self, pending: Pending, refusal: Refusal) -> Result<(), Loss> {
        match pending {
            Pending::Request(answer) => {
                let Refusal { code, message } = refusal;
                // Who asked may have given up.
                let _ = answer.send(Err(RequestError::Refused { code, message }));
                Ok(())
            }
            Pending::Join { is_first: true, .. } => Err(Loss::Failed(refusal.message)),
            Pending::Join { rooms, .. } => {
                let Refusal { code, message } = refusal;
                self.driver.rooms.forget(&rooms, &RequestError::Refused { code, message });
                self.driver.emit(Event::Denied(rooms)).await
            }
            Pending::Leave(_) | Pending::Refresh | Pending::Silent => self.report(refusal).await,
        }
    }

    async fn report(&mut self, refusal: Refusal) -> Result<(), Loss> {
        let Refusal { code, message } = refusal;
        self.is_unjudged = self.connected.is_none() && code == "authentication_error";
        self.driver.emit(Event::Error { code, message }).await
    }

    async fn go_online(&mut self) -> Result<(), Loss> {
        self.online_since = Some(Instant::now());
        let connected = self.connected.clone().expect("a join follows the login");
        self.driver.emit(Event::Online(connected)).await?;
        if std::mem::replace(&mut self.driver.was_online, true) {
            let reason = "recovered".to_owned();
            self.driver.emit(Event::Resync { rooms: None, reason }).await?;
        }
        while let Some(request) = self.driver.queue.pop() {
            self.request(request).await?;
        }
        Ok(())
    }

    async fn request(&mut self, request: Request) -> Result<(), Loss> {
        if self.pending.len() >= PENDING_MAX {
            request.refuse(RequestError::Busy);
            return Ok(());
        }
        let Request { event, data, answer } = request;
        self.ask(&event, Some(data.get()), Pending::Request(answer)).await
    }

    async fn join(&mut self, rooms: Vec<String>, is_first: bool) -> Result<(), Loss> {
        let data = json!({ "rooms": rooms }).to_string();
        self.ask("join", Some(&data), Pending::Join { rooms, is_first }).await
    }

    /// `data` is JSON text.
    async fn ask(&mut self, event: &str, data: Option<&str>, pending: Pending) -> Result<(), Loss> {
        self.requests += 1;
        self.pending.insert(self.requests, pending);
        let variant = self.driver.config.variant;
        self.socket.send(variant.request(event, data, Some(self.requests))).await
    }

    fn take(&mut self, id: Option<&str>) -> Option<Pending> {
        self.pending.remove(&id?.parse().ok()?)
    }
}

fn read_message(variant: Variant, payload: &[u8]) -> Result<Incoming<'_>, Loss> {
    let unread = |error| Loss::Failed(format!("a frame could not be read: {error}"));
    variant.read(payload).map_err(unread)
}

fn raw(text: &str) -> Result<Box<RawValue>, Loss> {
    read::<&RawValue>(text).map(ToOwned::to_owned)
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Loss> {
    serde_json::from_str(text)
        .map_err(|error| Loss::Failed(format!("a frame could not be read: {error}")))
}
