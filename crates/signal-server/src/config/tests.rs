//! Settings by table: what they mean, and what is said of those that mean nothing.

use std::fmt::Write as _;

use super::*;

fn config(variables: &[(&str, &str)]) -> Result<Config, String> {
    let dev = ("SIGNAL_AUTH", "insecure-dev");
    let variables = [dev]
        .into_iter()
        .chain(variables.iter().copied())
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Values::from_variables(variables)
        .and_then(|values| Config::from_values(&values))
        .map_err(|error| error.to_string())
}

#[test]
fn values_get_their_meaning() {
    let config = config(&[
        ("SIGNAL_LISTEN", "127.0.0.1:0"),
        ("SIGNAL_ADMIN_LISTEN", "off"),
        ("SIGNAL_WORKERS", "3"),
        ("SIGNAL_ROOMS", "lobby, user:{user}:*"),
        ("SIGNAL_MAX_MESSAGE", "64KiB"),
        ("SIGNAL_AUTH_TIMEOUT", "250ms"),
        ("SIGNAL_ALLOWED_ORIGINS", "https://POS.example"),
        ("APP_ENV_WEBSOCKET_REDIS_MODE", "single"),
        ("HOME", "/"),
    ])
    .unwrap();
    assert_eq!(config.listen.port(), 0);
    assert_eq!(config.admin_listen, None);
    assert_eq!(config.workers, 3);
    assert!(config.rooms[1].matches("user:a:x", Some("a")));
    assert_eq!(config.max_message, 65_536);
    assert_eq!(config.auth_timeout, Duration::from_millis(250));
    assert_eq!(config.origins, Origins::Listed(vec!["https://pos.example".to_owned()]));
    assert!(matches!(config.redis.mode, RedisMode::Single { port: 6379, .. }));
}

#[test]
fn what_is_not_allowed_is_said_in_one_sentence() {
    for (name, value, expected) in [
        (
            "SIGNAL_LISTEN",
            "3000",
            "SIGNAL_LISTEN is \"3000\", allowed is an address with a port, like 127.0.0.1:3000 or [::1]:3000",
        ),
        (
            "SIGNAL_LISTEN",
            "0.0.0.0:3000",
            "SIGNAL_AUTH is \"insecure-dev\", which believes anyone, and SIGNAL_LISTEN is 0.0.0.0:3000, allowed is a loopback address",
        ),
        ("SIGNAL_WORKERS", "0", "SIGNAL_WORKERS is \"0\", allowed is a whole number from 1 to 64"),
        (
            "SIGNAL_AUTH",
            "basic",
            "SIGNAL_AUTH is \"basic\", allowed is jwt, webhook or insecure-dev",
        ),
        (
            "SIGNAL_PATH",
            "ws",
            "SIGNAL_PATH is \"ws\", allowed is a path that starts with /, like /ws",
        ),
        (
            "SIGNAL_ROOMS",
            "a*",
            "SIGNAL_ROOMS is \"a*\", allowed is in the room pattern \"a*\", * must stand alone between colons",
        ),
        (
            "SIGNAL_AUTH_TIMEOUT",
            "soon",
            "SIGNAL_AUTH_TIMEOUT is \"soon\", allowed is a duration, like 500ms, 5s or 1h30m",
        ),
        ("SIGNAL_AUTH_TIMEOUT", "0s", "SIGNAL_AUTH_TIMEOUT is 0, allowed is a positive duration"),
        (
            "SIGNAL_MAX_OUTBOX",
            "1GB",
            "SIGNAL_MAX_OUTBOX is \"1GB\", allowed is a size from 1KiB to 256MiB, like 128KiB",
        ),
        (
            "SIGNAL_MAX_OUTBOX",
            "512KiB",
            "SIGNAL_MAX_BUS_MESSAGE is 524288 bytes, allowed is at most half of SIGNAL_MAX_OUTBOX (524288 bytes)",
        ),
        (
            "SIGNAL_ALLOWED_ORIGINS",
            "pos.example",
            "SIGNAL_ALLOWED_ORIGINS is \"pos.example\", allowed is * or exact origins, like https://pos.example.com,https://admin.example.com",
        ),
        (
            "SIGNAL_TRUSTED_PROXIES",
            "10.0.0.0/8,proxy",
            "SIGNAL_TRUSTED_PROXIES is \"10.0.0.0/8,proxy\", allowed is networks, like 10.0.0.0/8,fd00::/8",
        ),
        (
            "SIGNAL_TLS_KEY_FILE",
            "/key.pem",
            "one of SIGNAL_TLS_CERT_FILE and SIGNAL_TLS_KEY_FILE is set, allowed is both or none",
        ),
        (
            "SIGNAL_DEFAULT_ROOMS",
            "ws:x",
            "SIGNAL_DEFAULT_ROOMS has \"ws:x\", allowed are names of 1 to 256 characters that do not start with \"ws:\"",
        ),
        (
            "SIGNAL_LISEN",
            "x",
            "SIGNAL_LISEN is not a setting of Signal, did you mean SIGNAL_LISTEN?",
        ),
        ("SIGNAL_COMPLETELY_ELSE", "x", "SIGNAL_COMPLETELY_ELSE is not a setting of Signal"),
        (
            "APP_ENV_WEBSOCKET_REDIS_MODE",
            "cluster",
            "APP_ENV_WEBSOCKET_REDIS_CLUSTER_NODES is not set, APP_ENV_WEBSOCKET_REDIS_MODE = cluster needs host:port[,host:port…]",
        ),
        (
            "APP_ENV_WEBSOCKET_REDIS_TLS",
            "yes",
            "APP_ENV_WEBSOCKET_REDIS_TLS is \"yes\", allowed is off, on",
        ),
    ] {
        assert_eq!(config(&[(name, value)]).map(|_| ()), Err(expected.to_owned()));
    }
}

#[test]
fn a_secret_must_be_one() {
    let jwt = ("SIGNAL_AUTH", "jwt");
    assert!(config(&[jwt]).is_err_and(|error| error.contains("needs one of SIGNAL_JWT_SECRET,")));
    assert!(config(&[jwt, ("SIGNAL_JWT_SECRET", "short")]).is_err());
    let secret = ("SIGNAL_JWT_SECRET", "a secret of some length, for tests only");
    let error = config(&[jwt, secret, ("SIGNAL_JWT_SECRET_FILE", "/x")]).unwrap_err();
    assert_eq!(error, "SIGNAL_JWT_SECRET and SIGNAL_JWT_SECRET_FILE are both set, allowed is one");
    let config = config(&[jwt, secret]).unwrap();
    assert!(!format!("{config:?}").contains("a secret of"), "secrets are not shown");
}

#[test]
fn the_table_names_every_redis_variable_and_no_flag_twice() {
    for variable in signal_core::redis::VARIABLES {
        assert!(SETTINGS.iter().any(|setting| setting.name == *variable), "{variable}");
    }
    let flags: std::collections::BTreeSet<_> = SETTINGS.iter().map(Setting::flag).collect();
    assert_eq!(flags.len(), SETTINGS.len());
}

#[test]
fn the_readme_lists_every_setting_as_it_is() {
    let readme = include_str!("../../../../README.md");
    let mut table = String::new();
    for setting in SETTINGS {
        let default = match setting.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        let _ = writeln!(table, "| `{}` | {default} | {} |", setting.name, setting.meaning);
    }
    assert!(readme.contains(&table), "the table should be:\n{table}");
}
