//! `signal demo`: an edge with a web page, and made-up Sale and Payment services that publish to it.
//!
//! The services publish as a service in any language would: with `POST /v1/publish` on the admin port.
//! What pages ask for goes to a message handler. Everything is on loopback, and nothing has to be set
//! up.

mod shop;

use std::io::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::Uri;
use parking_lot::Mutex;
use serde_json::{Value, json};
use signal_core::close::CloseCode;
use signal_core::id::ClientId;
use signal_core::redis::Secret;
use signal_server::auth::jwt::JwtAuthenticator;
use signal_server::auth::{InsecureDev, RoomPattern};
use signal_server::config::{Auth, Values};
use signal_server::hooks::{Authenticator, MessageHandler};
use signal_server::{
    AuthError, Client, Config, Credentials, Grant, HookError, Message, Reply, Signal,
};
use tracing::warn;

use self::shop::{BRANCHES, Shop, stamped};
use super::{Failure, publish, serve};

/// Known to everyone, which is why the demo stays on loopback.
const JWT_SECRET: &str = "signal-demo-secret-known-to-everyone";
const API_KEY: &str = "demo";

const ORDER_INTERVAL: Duration = Duration::from_millis(900);
const PAYMENT_DELAY: Duration = Duration::from_millis(1400);
const NOTICE_INTERVAL: Duration = Duration::from_secs(25);

pub(crate) async fn run(values: &Values) -> Result<(), Failure> {
    let mut values = values.clone();
    values.set("SIGNAL_AUTH", "insecure-dev".to_owned());
    let mut config = Config::from_values(&values)?;
    config.auth = Auth::InsecureDev;
    config.demo_page = true;
    config.api_key = Some(Secret::new(API_KEY));
    config.rooms = vec!["*".parse::<RoomPattern>().map_err(Failure::usage)?];
    config.drain_delay = Duration::ZERO;
    config.drain_window = Duration::from_secs(1);
    let stop = serve::StopSignals::listen()?;
    let services = Services::default();
    let builder = Signal::builder()
        .config(config)
        .authenticator(DemoLogin::new())
        .on_message(services.clone());
    let edge = serve::bind(builder).await?;
    let Some(admin) = edge.admin_address() else {
        return Err(Failure::usage(
            "SIGNAL_ADMIN_LISTEN is off, but the demo publishes through it",
        ));
    };
    let via: Uri = format!("http://{admin}").parse().map_err(Failure::other)?;
    introduce(&format!("{}", edge.address()), &via).map_err(Failure::other)?;
    services.via.set(via).map_err(|_| Failure::other("the services have started already"))?;
    let traffic = [
        tokio::spawn({
            let services = services.clone();
            async move { services.sell().await }
        }),
        tokio::spawn(async move { services.announce().await }),
    ];
    let outcome = serve::run_until_stopped(edge, stop).await;
    for task in traffic {
        task.abort();
    }
    outcome
}

/// Prints where the page is, and what to try next.
fn introduce(address: &str, via: &Uri) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\n  Signal demo:  http://{address}\n\n  \
         Try in another terminal:\n    \
         signal tail --url ws://{address}/ws --user you --room branch:1\n    \
         signal emit --via {via} --key {API_KEY} --room branch:1 --event hello --data '{{\"from\":\"you\"}}'\n    \
         signal token --jwt-secret {JWT_SECRET} --user you\n\n  \
         (from this folder: cargo run --release --bin signal -- tail …)   Ctrl-C ends the demo.\n"
    )?;
    out.flush()
}

/// A token if there is one, else anyone.
struct DemoLogin {
    jwt: JwtAuthenticator,
}

// === impl DemoLogin ===

impl DemoLogin {
    fn new() -> Self {
        Self { jwt: JwtAuthenticator::hs256(&Secret::new(JWT_SECRET), None, None) }
    }
}

impl Authenticator for DemoLogin {
    async fn authenticate(
        &self,
        client: ClientId,
        credentials: Credentials,
    ) -> Result<Grant, AuthError> {
        match credentials.string("token") {
            Some(_) => self.jwt.authenticate(client, credentials).await,
            None => InsecureDev.authenticate(client, credentials).await,
        }
    }
}

/// The made-up services, and where they publish.
#[derive(Clone)]
struct Services {
    shop: Arc<Mutex<Shop>>,
    via: Arc<OnceLock<Uri>>,
}

impl Default for Services {
    fn default() -> Self {
        Self { shop: Arc::new(Mutex::new(Shop::open())), via: Arc::default() }
    }
}

// === impl Services ===

impl Services {
    /// An order every now and then.
    async fn sell(&self) {
        for number in 1_u64.. {
            tokio::time::sleep(ORDER_INTERVAL).await;
            self.sell_one(1 + number % BRANCHES).await;
        }
    }

    /// The Sale service takes an order, which is paid for a little later. It publishes what it has
    /// stored, so that what a page has loaded and what it hears have nothing between them.
    async fn sell_one(&self, branch: u64) -> Value {
        let (number, order) = self.shop.lock().order(branch);
        let room = format!("branch:{branch}");
        self.emit(
            json!({ "room": room, "event": "order.created", "data": stamped(order.clone()) }),
        )
        .await;
        let services = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PAYMENT_DELAY).await;
            services.capture(number).await;
        });
        order
    }

    /// The Payment service captures an order's payment, and asks an admin about large ones.
    async fn capture(&self, number: u64) {
        let Some(payment) = self.shop.lock().pay(number) else { return };
        let room = format!("branch:{}", payment.branch());
        let data = stamped(payment.published());
        self.emit(json!({ "room": room, "event": "payment.captured", "data": data })).await;
        let flag = payment.flag();
        if flag.is_object() {
            let data = stamped(flag);
            self.emit(json!({ "user": "admin", "event": "payment.flagged", "data": data })).await;
        }
    }

    /// Something for everyone.
    async fn announce(&self) {
        const TEXTS: [&str; 3] = [
            "Till reconciliation at 18:00",
            "New menu from Monday",
            "Card terminals update tonight",
        ];
        for text in TEXTS.iter().cycle() {
            tokio::time::sleep(NOTICE_INTERVAL).await;
            let data = stamped(json!({ "text": text }));
            self.emit(json!({ "all": true, "event": "notice", "data": data })).await;
        }
    }

    async fn emit(&self, message: Value) {
        let Some(via) = self.via.get() else { return };
        if let Err(error) = publish::post(via, API_KEY, message.to_string()).await {
            warn!(%error, "the demo could not publish");
        }
    }
}

/// What the page asks for: the orders that it did not hear of, an order of its own, and a lost
/// connection.
impl MessageHandler for Services {
    async fn handle(&self, client: Client, message: Message) -> Result<Reply, HookError> {
        let data: Value = message.parse()?;
        let branch = data["branch"].as_u64().filter(|branch| (1..=BRANCHES).contains(branch));
        match message.event.as_str() {
            "orders.list" => Ok(Reply::data(&self.shop.lock().snapshot(branch))?),
            "order.place" => Ok(Reply::data(&self.sell_one(branch.unwrap_or(1)).await)?),
            "demo.cut" => {
                client.signal.close(client.id, CloseCode::BusLost).await?;
                Ok(Reply::default())
            }
            _ => Err("the demo does not know this event".into()),
        }
    }
}
