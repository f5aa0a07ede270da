//! `signal demo`: an edge with a web page, and made-up Sale and Payment services that publish to it.
//!
//! The services publish as a service in any language would: with `POST /v1/publish` on the admin port.
//! Everything is on loopback, and nothing has to be set up.

use std::io::Write as _;
use std::time::Duration;

use hyper::Uri;
use serde_json::{Value, json};
use signal_core::id::ClientId;
use signal_core::redis::Secret;
use signal_server::auth::jwt::JwtAuthenticator;
use signal_server::auth::{InsecureDev, RoomPattern};
use signal_server::config::{Auth, Values};
use signal_server::hooks::Authenticator;
use signal_server::{AuthError, Config, Credentials, Grant, Signal};
use tracing::warn;

use super::{Failure, publish, serve};

/// Known to everyone, which is why the demo stays on loopback.
const JWT_SECRET: &str = "signal-demo-secret-known-to-everyone";
const API_KEY: &str = "demo";

const BRANCHES: u64 = 3;
const ORDER_INTERVAL: Duration = Duration::from_millis(900);
const PAYMENT_DELAY: Duration = Duration::from_millis(1400);

/// Amounts from which the made-up Payment service asks an admin to look, in cents.
const FLAGGED_CENTS: u64 = 4000;

const MENU: [(&str, &str, u64); 6] = [
    ("flat-white", "Flat white", 380),
    ("espresso", "Espresso", 260),
    ("croissant", "Butter croissant", 320),
    ("granola", "Granola bowl", 740),
    ("cheesecake", "Baked cheesecake", 560),
    ("iced-tea", "Peach iced tea", 420),
];

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
    let edge =
        serve::bind(Signal::builder().config(config).authenticator(DemoLogin::new())).await?;
    let Some(admin) = edge.admin_address() else {
        return Err(Failure::usage(
            "SIGNAL_ADMIN_LISTEN is off, but the demo publishes through it",
        ));
    };
    let via: Uri = format!("http://{admin}").parse().map_err(Failure::other)?;
    introduce(&format!("{}", edge.address()), &via).map_err(Failure::other)?;
    let services = [tokio::spawn(sale(via.clone())), tokio::spawn(notices(via))];
    let outcome = serve::run_until_stopped(edge, stop).await;
    for service in services {
        service.abort();
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

/// The made-up Sale service: an order every now and then, paid for a little later.
async fn sale(via: Uri) {
    for number in 1.. {
        tokio::time::sleep(ORDER_INTERVAL).await;
        let branch = 1 + number % BRANCHES;
        let (lines, cents) = basket(number);
        let order = json!({
            "id": format!("o-{}", 1000 + number),
            "branch": branch,
            "lines": lines,
            "total": euros(cents),
            "currency": "EUR",
        });
        emit(
            &via,
            json!({ "room": format!("branch:{branch}"), "event": "order.created", "data": order }),
        )
        .await;
        tokio::spawn(payment(via.clone(), number, branch, cents));
    }
}

/// The made-up Payment service: captures an order's payment, and asks an admin about large ones.
async fn payment(via: Uri, number: u64, branch: u64, cents: u64) {
    tokio::time::sleep(PAYMENT_DELAY).await;
    let id = format!("p-{}", 5000 + number);
    let payment = json!({
        "id": id,
        "order": format!("o-{}", 1000 + number),
        "branch": branch,
        "amount": euros(cents),
        "method": if number.is_multiple_of(4) { "cash" } else { "card" },
    });
    emit(
        &via,
        json!({ "room": format!("branch:{branch}"), "event": "payment.captured", "data": payment }),
    )
    .await;
    if cents >= FLAGGED_CENTS {
        let flag = json!({ "payment": id, "amount": euros(cents), "reason": "amount above limit" });
        emit(&via, json!({ "user": "admin", "event": "payment.flagged", "data": flag })).await;
    }
}

/// Something for everyone.
async fn notices(via: Uri) {
    const TEXTS: [&str; 3] =
        ["Till reconciliation at 18:00", "New menu from Monday", "Card terminals update tonight"];
    for text in TEXTS.iter().cycle() {
        tokio::time::sleep(Duration::from_secs(12)).await;
        emit(&via, json!({ "all": true, "event": "notice", "data": { "text": text } })).await;
    }
}

async fn emit(via: &Uri, message: Value) {
    if let Err(error) = publish::post(via, API_KEY, message.to_string()).await {
        warn!(%error, "the demo could not publish");
    }
}

/// The same order for the same number: variety without chance.
fn basket(number: u64) -> (Vec<Value>, u64) {
    let mut cents = 0;
    let lines = (0..=number % 3)
        .map(|line| {
            let index = usize::try_from((number * 7 + line * 5) % 6).unwrap_or_default();
            let (sku, name, price) = MENU[index];
            let quantity = 1 + (number + line * 3) % 4;
            cents += price * quantity;
            json!({ "sku": sku, "name": name, "quantity": quantity })
        })
        .collect();
    (lines, cents)
}

fn euros(cents: u64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
