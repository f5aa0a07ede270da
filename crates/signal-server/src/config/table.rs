//! The table of all settings.

/// A setting, as it stands in the environment.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The variable. The flag is its name in lower case, with dashes, without its first words.
    pub name: &'static str,
    /// What it is if it is not set, for people.
    pub default: &'static str,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// Its value is not shown.
    pub secret: bool,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default, meaning, secret: false }
}

const fn secret(name: &'static str, meaning: &'static str) -> Setting {
    Setting { name, default: "", meaning, secret: true }
}

/// Every setting.
pub const SETTINGS: &[Setting] = &[
    setting("SIGNAL_LISTEN", "127.0.0.1:3000", "address for clients and health"),
    setting("SIGNAL_ADMIN_LISTEN", "127.0.0.1:3001", "address for operators, or off"),
    setting("SIGNAL_PATH", "/ws", "path of the WebSocket"),
    setting("SIGNAL_WORKERS", "cores", "threads that serve connections"),
    setting(
        "SIGNAL_AUTH",
        "jwt",
        "how clients log in: jwt, webhook, or insecure-dev (anyone, loopback only)",
    ),
    secret("SIGNAL_JWT_SECRET", "secret of HS256 tokens, at least 32 bytes (HS384: 48, HS512: 64)"),
    setting(
        "SIGNAL_JWT_SECRET_FILE",
        "",
        "file with secrets, one on each line; read anew on SIGHUP",
    ),
    setting(
        "SIGNAL_JWT_PUBLIC_KEY_FILE",
        "",
        "PEM file with public keys (RSA, P-256, P-384, Ed25519); read anew on SIGHUP",
    ),
    setting("SIGNAL_JWT_JWKS_URL", "", "URL of a JSON Web Key Set, fetched again and again"),
    setting("SIGNAL_JWT_ISSUER", "", "what iss must be, if set"),
    setting("SIGNAL_JWT_AUDIENCE", "", "what aud must hold, if set"),
    setting("SIGNAL_AUTH_WEBHOOK_URL", "", "whom to POST credentials to"),
    setting(
        "SIGNAL_AUTH_WEBHOOK_TIMEOUT",
        "5s",
        "how long a login waits for the webhook, up to 1m",
    ),
    setting(
        "SIGNAL_ROOMS",
        "",
        "room patterns any client may join: lobby,user:{user}:* (* alone: all)",
    ),
    setting("SIGNAL_DEFAULT_ROOMS", "ws-default,ws-notification", "rooms every client is in"),
    setting("SIGNAL_ENCRYPTION", "off", "payload encryption: off, optional, required"),
    setting("SIGNAL_ALLOWED_ORIGINS", "same host", "origins of pages that may connect, or *"),
    setting("SIGNAL_SUBPROTOCOLS", "", "further subprotocols to accept as the plain protocol"),
    setting("SIGNAL_AUTH_TIMEOUT", "5s", "time to send authenticate"),
    setting("SIGNAL_PING_INTERVAL", "30s", "between pings"),
    setting("SIGNAL_HEARTBEAT_TIMEOUT", "90s", "silence after which a client is closed (4002)"),
    setting("SIGNAL_MAX_MESSAGE", "128KiB", "bytes of a client's message (1009)"),
    setting("SIGNAL_MAX_OUTBOX", "1MiB", "bytes queued for a client (4100)"),
    setting("SIGNAL_MAX_BUS_MESSAGE", "512KiB", "bytes of an envelope (dropped)"),
    setting("SIGNAL_MAX_ROOMS", "128", "rooms per client, defaults not counted"),
    setting("SIGNAL_MAX_CONNECTIONS", "open files - 256", "connections; beyond: 503"),
    setting("SIGNAL_MAX_UNAUTHENTICATED", "5000", "connections not logged in; beyond: 503"),
    setting("SIGNAL_MAX_UNAUTHENTICATED_PER_ADDRESS", "0", "those of one address; 0: no limit"),
    setting("SIGNAL_ACCEPT_RATE", "0", "upgrades per second; beyond: 503; 0: no limit"),
    setting(
        "SIGNAL_TLS_CERT_FILE",
        "",
        "PEM file with the certificate and its chain: TLS for clients",
    ),
    setting(
        "SIGNAL_TLS_KEY_FILE",
        "",
        "PEM file with its private key; both are read anew on SIGHUP",
    ),
    setting("SIGNAL_TRUSTED_PROXIES", "", "networks whose X-Forwarded-For is believed"),
    setting("SIGNAL_MAX_CONNECTION_AGE", "off", "age at which connections are spread anew (4102)"),
    setting("SIGNAL_MESSAGE_RATE", "200", "messages per second and client (4503)"),
    setting("SIGNAL_MESSAGE_BURST", "1000", "messages at once and client (4503)"),
    setting("SIGNAL_DRAIN_DELAY", "5s", "on SIGTERM: not ready, but still accepting"),
    setting("SIGNAL_DRAIN_WINDOW", "30s", "then: closes spread over this time"),
    setting("SIGNAL_BUS_PROBE_INTERVAL", "5s", "between probes of a bus link"),
    secret("SIGNAL_API_KEY", "key of the API that publishes, drains, closes; unset: off"),
    setting("SIGNAL_API_KEY_FILE", "", "file with the key"),
    setting("SIGNAL_API_RATE", "1000", "messages per second through the publish API (429)"),
    setting("SIGNAL_LOG", "info", "log filter, like info or signal_server=debug"),
    setting("SIGNAL_LOG_FORMAT", "text on a terminal, else json", "text or json"),
    setting(
        "APP_ENV_WEBSOCKET_REDIS_MODE",
        "none",
        "none (one edge, in-process bus), single or cluster",
    ),
    setting("APP_ENV_WEBSOCKET_REDIS_HOST", "127.0.0.1", "host of Redis"),
    setting("APP_ENV_WEBSOCKET_REDIS_PORT", "6379", "port of Redis"),
    setting(
        "APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES",
        "",
        "nodes of the cluster to begin with: host:port,host:port",
    ),
    setting("APP_ENV_WEBSOCKET_REDIS_USERNAME", "", "user of Redis"),
    secret("APP_ENV_WEBSOCKET_REDIS_PASSWORD", "password of Redis"),
    setting("APP_ENV_WEBSOCKET_REDIS_PASSWORD_FILE", "", "file with the password"),
    setting("APP_ENV_WEBSOCKET_REDIS_TLS", "off", "TLS to Redis: on or off"),
    setting("APP_ENV_WEBSOCKET_REDIS_TLS_CA_FILE", "", "authorities to trust, else the system's"),
    setting("APP_ENV_WEBSOCKET_REDIS_PREFIX", "", "in front of every channel"),
    setting(
        "APP_ENV_WEBSOCKET_REDIS_PUBSUB",
        "classic",
        "classic, or sharded (cluster only, without TypeScript servers)",
    ),
    setting("APP_ENV_WEBSOCKET_REDIS_CODEC", "json", "what is sent: json or msgpack"),
];

impl Setting {
    /// The flag, without its dashes in front: `listen` of `SIGNAL_LISTEN`, `redis-host` of
    /// `APP_ENV_WEBSOCKET_REDIS_HOST`.
    pub fn flag(&self) -> String {
        let short = self
            .name
            .strip_prefix("SIGNAL_")
            .or_else(|| self.name.strip_prefix("APP_ENV_WEBSOCKET_"))
            .unwrap_or(self.name);
        short.to_ascii_lowercase().replace('_', "-")
    }
}

/// The setting whose name is nearest to a misspelt one, if any is near.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    /// Changes that a slip of the hand makes.
    const DISTANCE_MAX: usize = 4;
    SETTINGS
        .iter()
        .map(|setting| (distance(name, setting.name), setting.name))
        .min()
        .filter(|(distance, _)| *distance <= DISTANCE_MAX)
        .map(|(_, name)| name)
}

/// The Levenshtein distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.bytes().enumerate() {
            let change = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
