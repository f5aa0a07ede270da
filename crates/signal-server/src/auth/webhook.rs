//! Login by asking a service: the credentials are posted to it, and its answer is the grant.
//!
//! Three outcomes, which are told apart to the client, in the log and in the metrics: accepted (200),
//! rejected (401 and 403), and nobody could tell (anything else, or nothing in time). It owns how many
//! logins ask at once; those beyond wait, within the same deadline. Requests run on the runtime that
//! carries the edge, so that a service that is slow or dead costs a worker nothing. What is in the
//! credentials is never logged.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use serde::Deserialize;
use signal_core::id::ClientId;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::jwt::LEEWAY;
use super::{AuthCounts, RoomPattern};
use crate::config::WebhookSettings;
use crate::hooks::{AuthError, Authenticator, Credentials, Grant};
use crate::http::client::{Client, ClientError, TlsError};

/// Logins that ask at once. At 10 ms an answer that is 12 800 logins a second from one edge, which is
/// more than it accepts; and what a small service still takes from a fleet that has just restarted.
const REQUESTS_MAX: usize = 128;

/// Bytes of an answer: a few hundred patterns and rooms, and metadata.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Before this, in milliseconds, lies no time that credentials end at, but every one in seconds.
const MILLISECONDS_MIN: u64 = 1_000_000_000_000;

/// Asks a service; see the module.
#[derive(Debug)]
pub(crate) struct Webhook {
    asking: Arc<Asking>,
    runtime: Handle,
}

#[derive(Debug)]
struct Asking {
    client: Client,
    timeout: Duration,
    permits: Semaphore,
    counts: Arc<AuthCounts>,
}

/// What came of asking.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Accepted,
    Rejected,
    /// Too many others asked.
    Busy,
    /// No answer in time.
    Timeout,
    /// No connection, or none that lasted.
    Unreachable,
    /// An answer that says neither yes nor no.
    Unusable,
}

/// Why nobody could tell.
#[derive(Debug, thiserror::Error)]
enum WebhookError {
    #[error("too many logins ask the webhook")]
    Busy,
    #[error("the webhook has not answered in time")]
    Timeout,
    #[error("the webhook cannot be asked")]
    Client(#[from] ClientError),
    #[error("the webhook answers {0}")]
    Status(StatusCode),
    #[error("the webhook's answer is not usable")]
    Answer(#[from] AnswerError),
}

/// Why an answer is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// Not the JSON that it should be.
    #[error("it is not the JSON object that was asked for")]
    Json(#[from] serde_json::Error),
    /// A number of seconds where milliseconds should be.
    #[error("expires is not in milliseconds since the Unix epoch")]
    Expires,
    /// Beyond what credentials may grant.
    #[error("{0}")]
    Bounds(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    user_id: Option<String>,
    rooms: Option<Vec<RoomPattern>>,
    join: Option<Vec<String>>,
    expires: Option<u64>,
    metadata: Option<serde_json::Value>,
}

// === impl Outcome ===

impl Outcome {
    pub(crate) const ALL: [&str; 6] =
        ["accepted", "rejected", "busy", "timeout", "unreachable", "unusable"];
}

impl From<Outcome> for usize {
    fn from(outcome: Outcome) -> Self {
        outcome as Self
    }
}

// === impl Webhook ===

impl Webhook {
    /// Asks as the settings say, on the runtime that it is made in.
    pub(crate) fn new(
        settings: &WebhookSettings,
        counts: Arc<AuthCounts>,
    ) -> Result<Self, TlsError> {
        let client = Client::new(settings.url.clone())?;
        let permits = Semaphore::new(REQUESTS_MAX);
        let asking = Asking { client, timeout: settings.timeout, permits, counts };
        Ok(Self { asking: Arc::new(asking), runtime: Handle::current() })
    }
}

impl Authenticator for Webhook {
    async fn authenticate(
        &self,
        client: ClientId,
        credentials: Credentials,
    ) -> Result<Grant, AuthError> {
        let asking = self.asking.clone();
        let answer = self.runtime.spawn(async move { asking.ask(client, &credentials).await });
        answer.await.unwrap_or_else(|error| Err(AuthError::Failed(Box::new(error))))
    }
}

// === impl Asking ===

impl Asking {
    async fn ask(&self, client: ClientId, credentials: &Credentials) -> Result<Grant, AuthError> {
        let answer = self.post(client, credentials).await;
        self.counts.webhook.count(match &answer {
            Ok(Some(_)) => Outcome::Accepted,
            Ok(None) => Outcome::Rejected,
            Err(WebhookError::Busy) => Outcome::Busy,
            Err(WebhookError::Timeout) => Outcome::Timeout,
            Err(
                WebhookError::Client(ClientError::TooLarge(_))
                | WebhookError::Status(_)
                | WebhookError::Answer(_),
            ) => Outcome::Unusable,
            Err(WebhookError::Client(_)) => Outcome::Unreachable,
        });
        match answer {
            Ok(Some(grant)) => Ok(grant),
            Ok(None) => Err(AuthError::Rejected("the webhook rejects them".to_owned())),
            Err(error) => Err(AuthError::Failed(Box::new(error))),
        }
    }

    /// The grant; `None` if the credentials are no good.
    async fn post(
        &self,
        client: ClientId,
        credentials: &Credentials,
    ) -> Result<Option<Grant>, WebhookError> {
        let (asked, deadline) = (SystemTime::now(), Instant::now() + self.timeout);
        let permit = timeout_at(deadline, self.permits.acquire()).await;
        let _permit = permit.map_err(|_| WebhookError::Busy)?;
        let credentials = credentials.json();
        let question = format!("{{\"clientId\":\"{client}\",\"credentials\":{credentials}}}");
        let answer = timeout_at(deadline, self.client.post(question, ANSWER_BYTES_MAX)).await;
        let answer = answer.map_err(|_| WebhookError::Timeout)??;
        match answer.status {
            StatusCode::OK => {
                // What is revoked after it was asked about is revoked.
                let grant = Grant { issued: Some(asked), ..read_answer(&answer.body)? };
                let ended = grant.expires.is_some_and(|end| end + LEEWAY < SystemTime::now());
                Ok((!ended).then_some(grant))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Ok(None),
            status => Err(WebhookError::Status(status)),
        }
    }
}

/// Reads what a webhook says of credentials that it accepts: `{userId?, rooms?, join?, expires?,
/// metadata?}`, with `expires` in milliseconds since the Unix epoch.
pub fn read_answer(json: &[u8]) -> Result<Grant, AnswerError> {
    // A list would do for the library, its items in the order of the members.
    let members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(json)?;
    let answer: Answer = serde_json::from_value(members.into())?;
    let expires = match answer.expires {
        Some(..MILLISECONDS_MIN) => return Err(AnswerError::Expires),
        expires => expires.and_then(|end| UNIX_EPOCH.checked_add(Duration::from_millis(end))),
    };
    super::bounded(Grant {
        user_id: answer.user_id,
        rooms: answer.rooms.unwrap_or_default(),
        join: answer.join.unwrap_or_default(),
        expires,
        metadata: answer.metadata,
        ..Grant::default()
    })
    .map_err(AnswerError::Bounds)
}
