//! From a value's text to its type; the error says what is allowed.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::{Encryption, Network, Origins};

pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "an address with a port, like 127.0.0.1:3000 or [::1]:3000".to_owned())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "a duration, like 500ms, 5s or 1h30m".to_owned())
}

pub(super) fn number<T>(text: &str, min: T, max: T) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display + Copy,
{
    text.parse()
        .ok()
        .filter(|number| *number >= min && *number <= max)
        .ok_or_else(|| format!("a whole number from {min} to {max}"))
}

/// A number of bytes, with or without a unit: `131072`, `128KiB`, `1MiB`.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    let (digits, factor) = [("KiB", 1024), ("MiB", 1024 * 1024), ("B", 1)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1));
    digits
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|count| count.checked_mul(factor))
        .filter(|bytes| (1024..=256 * 1024 * 1024).contains(bytes))
        .ok_or_else(|| "a size from 1KiB to 256MiB, like 128KiB".to_owned())
}

pub(super) fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"".contains(&byte));
    if is_path {
        Ok(text.to_owned())
    } else {
        Err("a path that starts with /, like /ws".to_owned())
    }
}

pub(super) fn encryption(text: &str) -> Result<Encryption, String> {
    match text {
        "off" => Ok(Encryption::Off),
        "optional" => Ok(Encryption::Optional),
        "required" => Ok(Encryption::Required),
        _ => Err("off, optional or required".to_owned()),
    }
}

pub(super) fn origins(text: &str) -> Result<Origins, String> {
    if text == "*" {
        return Ok(Origins::Any);
    }
    let is_origin = |origin: &str| {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ']))
    };
    let origins: Vec<_> = list(text).map(str::to_ascii_lowercase).collect();
    match origins.iter().all(|origin| is_origin(origin)) {
        true => Ok(Origins::Listed(origins)),
        false => {
            Err("* or exact origins, like https://pos.example.com,https://admin.example.com"
                .to_owned())
        }
    }
}

pub(super) fn networks(text: &str) -> Result<Vec<Network>, String> {
    list(text)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| "networks, like 10.0.0.0/8,fd00::/8".to_owned())
}

/// Names that may stand in `Sec-WebSocket-Protocol`: tokens (RFC 9110 §5.6.2).
pub(super) fn tokens(text: &str) -> Result<Vec<String>, String> {
    let is_token = |token: &str| {
        token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let tokens: Vec<_> = list(text).map(str::to_owned).collect();
    match tokens.iter().all(|token| is_token(token)) {
        true => Ok(tokens),
        false => Err("names without spaces, separated by commas".to_owned()),
    }
}

/// The items of a comma-separated list; white space around them and empty ones are dropped.
pub(super) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}
