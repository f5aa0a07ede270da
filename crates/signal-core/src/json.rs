//! A validating scanner that slices JSON text and never builds values.
//!
//! Owns the grammar of RFC 8259, string escapes and the depth limit. It must never change a byte of
//! what it slices: numbers keep their digits, keys their order. It does not recurse, allocates only
//! to unescape a string, and keeps one bit per level of nesting.
//!
//! Why not a general parser: the edge checks each bus message once and delivers the bytes as they
//! are, so all it needs is where the members of one object are. `serde_json` is the reference in the
//! property tests.

mod scanner;
mod string;

use std::borrow::Cow;

pub use string::{string, unescape, write_string};

use crate::limits::JSON_DEPTH_MAX;
use scanner::Scanner;

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The text is not JSON.
    #[error("the text is not JSON")]
    Syntax,
    /// More levels than allowed.
    #[error("the JSON is nested too deeply")]
    TooDeep,
    /// JSON, but of another type than asked for.
    #[error("the JSON is of the wrong type")]
    WrongType,
}

/// Checks that `text` is one JSON value of at most `depth_max` levels, at most [`JSON_DEPTH_MAX`],
/// and returns it without the white space around it.
pub fn validate(text: &str, depth_max: usize) -> Result<&str, JsonError> {
    let mut scanner = Scanner::new(text, depth_max);
    let value = scanner.value()?;
    scanner.end()?;
    Ok(value)
}

/// The JSON texts of the members called `names` of the object that `text` is, in that order.
///
/// The whole text is validated. Of a name that comes twice the last counts, as in `JSON.parse`;
/// other members are checked and skipped. Valid JSON that is no object is [`JsonError::WrongType`].
pub fn members<'a, const COUNT: usize>(
    text: &'a str,
    names: &[&str; COUNT],
) -> Result<[Option<&'a str>; COUNT], JsonError> {
    let mut scanner = Scanner::new(text, JSON_DEPTH_MAX);
    let mut found = [None; COUNT];
    // Producers write members in one order, so the next name is most often the next member.
    let mut expected = 0;
    let is_object = scanner.each_member(|name, value| {
        let after = (expected..COUNT).find(|&index| names[index] == name);
        if let Some(index) = after.or_else(|| (0..expected).find(|&index| names[index] == name)) {
            found[index] = Some(value);
            expected = index + 1;
        }
    })?;
    if !is_object {
        scanner.value()?;
    }
    scanner.end()?;
    if is_object { Ok(found) } else { Err(JsonError::WrongType) }
}

/// The strings of the array of strings that `text` is.
pub fn strings(text: &str) -> Result<Vec<Cow<'_, str>>, JsonError> {
    let mut scanner = Scanner::new(text, JSON_DEPTH_MAX);
    let mut found = Vec::new();
    let mut wrong = false;
    let is_array = scanner.each_element(|element| match unescape(element) {
        Some(string) => found.push(string),
        None => wrong = true,
    })?;
    if !is_array {
        scanner.value()?;
    }
    scanner.end()?;
    if is_array && !wrong { Ok(found) } else { Err(JsonError::WrongType) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::DATA_DEPTH_MAX;

    #[test]
    fn members_are_slices_of_the_text() {
        let text = " {\"b\" : [1, 2.50] ,\"a\":\"x\\n\",\"c\":{\"a\":0},\"\\u0062\":1e400} ";
        let found = members(text, &["a", "b", "z"]).unwrap();
        assert_eq!(found, [Some("\"x\\n\""), Some("1e400"), None]);
        assert_eq!(members("{}", &["a"]), Ok([None]));
        assert_eq!(members("{ }", &["a"]), Ok([None]));
        for other in ["[]", "null", "1", "\"a\"", "[{\"a\":1}]"] {
            assert_eq!(members(other, &["a"]), Err(JsonError::WrongType), "{other}");
        }
        for other in ["", "{", "{}x", "{} {}", "{\"a\":1,}", "{a:1}", "[1", "{\"a\" 1}", "{,}"] {
            assert_eq!(members(other, &["a"]), Err(JsonError::Syntax), "{other}");
        }
    }

    #[test]
    fn depth_counts_every_level() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert!(validate(&nested(JSON_DEPTH_MAX), JSON_DEPTH_MAX).is_ok());
        assert_eq!(validate(&nested(JSON_DEPTH_MAX + 1), JSON_DEPTH_MAX), Err(JsonError::TooDeep));
        assert_eq!(validate(" 1\n", 0), Ok("1"));
        assert_eq!(validate(&nested(1), 0), Err(JsonError::TooDeep));
        let wrapped = |levels| format!("{{\"data\":{}}}", nested(levels));
        assert!(members(&wrapped(DATA_DEPTH_MAX), &["data"]).is_ok());
        assert_eq!(members(&wrapped(DATA_DEPTH_MAX + 1), &["data"]), Err(JsonError::TooDeep));
        assert_eq!(validate(&"[".repeat(1 << 20), JSON_DEPTH_MAX), Err(JsonError::TooDeep));
    }

    #[test]
    fn wide_texts_are_not_deep() {
        let wide = format!("[{}[]]", "[],".repeat(1000));
        assert!(validate(&wide, JSON_DEPTH_MAX).is_ok());
    }

    #[test]
    fn strings_of_an_array() {
        assert_eq!(strings("[]").unwrap(), Vec::<Cow<'_, str>>::new());
        assert_eq!(strings(" [ \"a\" , \"\\u00e9\" ] ").unwrap(), ["a", "é"]);
        for other in ["null", "{}", "[1]", "[\"a\",null]", "[[\"a\"]]", "\"a\""] {
            assert_eq!(strings(other), Err(JsonError::WrongType), "{other}");
        }
        for other in ["[\"a\"", "[\"a\",]", "[,]", "[\"a\"]]"] {
            assert_eq!(strings(other), Err(JsonError::Syntax), "{other}");
        }
    }
}
