//! Room patterns: which rooms a client may ask for.
//!
//! A pattern is a room name in which `*` as a whole segment (between colons) stands for any one
//! segment, and `{user}` for the client's own user id, taken literally whatever is in it. `*` alone
//! stands for every room. What no pattern matches is denied. Pure; bounded by the pattern's length.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// Bytes of a pattern: beyond any room name.
const PATTERN_BYTES_MAX: usize = 1024;

const USER: &str = "{user}";

/// One pattern; see the module.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RoomPattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Everything,
    Literal(String),
    User,
    Segment,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Nothing in it.
    #[error("a room pattern must not be empty")]
    Empty,
    /// Longer than any room name.
    #[error("a room pattern has at most {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// A `*` beside other characters.
    #[error("in the room pattern \"{0}\", * must stand alone between colons")]
    Star(String),
    /// A brace that is not part of `{user}`.
    #[error("in the room pattern \"{0}\", {{user}} is the only placeholder")]
    Placeholder(String),
}

// === impl RoomPattern ===

impl RoomPattern {
    /// Whether a client logged in as `user` may ask for `room`.
    pub fn matches(&self, room: &str, user: Option<&str>) -> bool {
        let mut rest = room;
        for part in &self.parts {
            let after = match part {
                Part::Everything => return true,
                Part::Literal(text) => rest.strip_prefix(text.as_str()),
                Part::User => {
                    user.filter(|user| !user.is_empty()).and_then(|user| rest.strip_prefix(user))
                }
                Part::Segment => match rest.find(':').unwrap_or(rest.len()) {
                    0 => None,
                    end => Some(&rest[end..]),
                },
            };
            let Some(after) = after else { return false };
            rest = after;
        }
        rest.is_empty()
    }
}

impl FromStr for RoomPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        if text == "*" {
            return Ok(Self { text: text.to_owned(), parts: vec![Part::Everything] });
        }
        let mut parts = Vec::new();
        for (index, segment) in text.split(':').enumerate() {
            if index > 0 {
                push_literal(&mut parts, ":");
            }
            if segment == "*" {
                parts.push(Part::Segment);
                continue;
            }
            if segment.contains('*') {
                return Err(PatternError::Star(text.to_owned()));
            }
            for (index, literal) in segment.split(USER).enumerate() {
                if literal.contains(['{', '}']) {
                    return Err(PatternError::Placeholder(text.to_owned()));
                }
                if index > 0 {
                    parts.push(Part::User);
                }
                push_literal(&mut parts, literal);
            }
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &str) {
    match parts.last_mut() {
        _ if literal.is_empty() => {}
        Some(Part::Literal(text)) => text.push_str(literal),
        _ => parts.push(Part::Literal(literal.to_owned())),
    }
}

impl TryFrom<String> for RoomPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_matches() {
        for (pattern, room, user, expected) in [
            ("lobby", "lobby", None, true),
            ("lobby", "lobby2", None, false),
            ("lobby", "lobb", None, false),
            ("*", "anything:at:all", None, true),
            ("branch:*", "branch:12", None, true),
            ("branch:*", "branch:", None, false),
            ("branch:*", "branch:12:orders", None, false),
            ("branch:*", "branch", None, false),
            ("branch:*:orders", "branch:12:orders", None, true),
            ("branch:*:orders", "branch:12:payments", None, false),
            ("*:orders", "x:orders", None, true),
            ("user:{user}", "user:u1", Some("u1"), true),
            ("user:{user}", "user:u12", Some("u1"), false),
            ("user:{user}", "user:", None, false),
            ("user:{user}", "user:", Some(""), false),
            ("user:{user}:*", "user:u1:inbox", Some("u1"), true),
            ("user:{user}:*", "user:u2:inbox", Some("u1"), false),
            // A user id is taken literally: it is no pattern, and its colons are its own.
            ("user:{user}", "user:anyone", Some("*"), false),
            ("user:{user}:*", "user:a:b:inbox", Some("a:b"), true),
            ("{user}-{user}", "a-a", Some("a"), true),
        ] {
            let parsed: RoomPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(room, user), expected, "{pattern} {room} {user:?}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        let parse = |text: &str| text.parse::<RoomPattern>().map(|_| ());
        assert_eq!(parse(""), Err(PatternError::Empty));
        assert_eq!(parse("a*"), Err(PatternError::Star("a*".to_owned())));
        assert_eq!(parse("a:**"), Err(PatternError::Star("a:**".to_owned())));
        assert_eq!(parse("{name}"), Err(PatternError::Placeholder("{name}".to_owned())));
        assert_eq!(parse(&"a".repeat(1025)), Err(PatternError::TooLong));
    }

    proptest! {
        #[test]
        fn a_plain_name_matches_itself_alone(name in "[a-z:]{1,20}", other in "[a-z:]{1,20}") {
            let pattern: RoomPattern = name.parse().unwrap();
            prop_assert!(pattern.matches(&name, None));
            prop_assert_eq!(pattern.matches(&other, None), name == other);
        }
    }
}
