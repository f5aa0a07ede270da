//! The scanner: a position in a text, and steps that either pass a token or fail.

use super::{JsonError, string};
use crate::limits::JSON_DEPTH_MAX;

/// Walks one text from left to right.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth_max: usize,
}

/// The open containers around a position, innermost in the lowest bit: 1 object, 0 array.
#[derive(Default)]
struct Nesting {
    kinds: u128,
    depth: usize,
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str, depth_max: usize) -> Self {
        Self { text, at: 0, depth_max: depth_max.min(JSON_DEPTH_MAX) }
    }

    /// Succeeds if nothing but white space is left.
    pub(super) fn end(&mut self) -> Result<(), JsonError> {
        self.white_space();
        if self.at == self.text.len() { Ok(()) } else { Err(JsonError::Syntax) }
    }

    /// Passes one value and returns its text, without the white space around it.
    pub(super) fn value(&mut self) -> Result<&'a str, JsonError> {
        self.white_space();
        let start = self.at;
        self.pass_value(self.depth_max)?;
        Ok(&self.text[start..self.at])
    }

    /// Passes an object, calling `visit` with the unescaped name and the text of each member.
    /// Returns false, at the same position, if something else comes.
    pub(super) fn each_member(
        &mut self,
        mut visit: impl FnMut(&str, &'a str),
    ) -> Result<bool, JsonError> {
        if !self.open(b'{')? {
            return Ok(false);
        }
        if self.take(b'}') {
            return Ok(true);
        }
        loop {
            let name = self.member_name()?;
            self.white_space();
            let start = self.at;
            self.pass_value(self.depth_max - 1)?;
            let value = &self.text[start..self.at];
            match string::unescape(name) {
                Some(name) => visit(&name, value),
                None => return Err(JsonError::Syntax),
            }
            if !self.comma_or(b'}')? {
                return Ok(true);
            }
        }
    }

    /// Passes an array, calling `visit` with the text of each element. Returns false, at the same
    /// position, if something else comes.
    pub(super) fn each_element(
        &mut self,
        mut visit: impl FnMut(&'a str),
    ) -> Result<bool, JsonError> {
        if !self.open(b'[')? {
            return Ok(false);
        }
        if self.take(b']') {
            return Ok(true);
        }
        loop {
            self.white_space();
            let start = self.at;
            self.pass_value(self.depth_max - 1)?;
            visit(&self.text[start..self.at]);
            if !self.comma_or(b']')? {
                return Ok(true);
            }
        }
    }

    fn open(&mut self, bracket: u8) -> Result<bool, JsonError> {
        if !self.take(bracket) {
            return Ok(false);
        }
        if self.depth_max == 0 { Err(JsonError::TooDeep) } else { Ok(true) }
    }

    fn comma_or(&mut self, bracket: u8) -> Result<bool, JsonError> {
        if self.take(b',') {
            Ok(true)
        } else if self.take(bracket) {
            Ok(false)
        } else {
            Err(JsonError::Syntax)
        }
    }

    /// Passes a value of at most `depth_max` levels, without recursion.
    fn pass_value(&mut self, depth_max: usize) -> Result<(), JsonError> {
        let mut nesting = Nesting::default();
        loop {
            self.white_space();
            match self.peek() {
                Some(b'"') => self.pass_string()?,
                Some(b'{') => {
                    nesting.open(true, depth_max)?;
                    self.at += 1;
                    if !self.take(b'}') {
                        self.member_name()?;
                        continue;
                    }
                    nesting.close();
                }
                Some(b'[') => {
                    nesting.open(false, depth_max)?;
                    self.at += 1;
                    if !self.take(b']') {
                        continue;
                    }
                    nesting.close();
                }
                Some(b'-' | b'0'..=b'9') => self.pass_number()?,
                Some(b't') => self.pass_literal("true")?,
                Some(b'f') => self.pass_literal("false")?,
                Some(b'n') => self.pass_literal("null")?,
                _ => return Err(JsonError::Syntax),
            }
            if !self.pass_closings(&mut nesting)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. True if another value follows.
    fn pass_closings(&mut self, nesting: &mut Nesting) -> Result<bool, JsonError> {
        while nesting.depth > 0 {
            self.white_space();
            let in_object = nesting.in_object();
            match self.peek() {
                Some(b',') => {
                    self.at += 1;
                    if in_object {
                        self.member_name()?;
                    }
                    return Ok(true);
                }
                Some(b'}') if in_object => nesting.close(),
                Some(b']') if !in_object => nesting.close(),
                _ => return Err(JsonError::Syntax),
            }
            self.at += 1;
        }
        Ok(false)
    }

    /// Passes `"name" :` and returns the name as it stands, quotes included.
    fn member_name(&mut self) -> Result<&'a str, JsonError> {
        self.white_space();
        if self.peek() != Some(b'"') {
            return Err(JsonError::Syntax);
        }
        let start = self.at;
        self.pass_string()?;
        let name = &self.text[start..self.at];
        if self.take(b':') { Ok(name) } else { Err(JsonError::Syntax) }
    }

    /// Passes a string whose opening quote is next.
    fn pass_string(&mut self) -> Result<(), JsonError> {
        let bytes = self.text.as_bytes();
        let mut at = self.at + 1;
        loop {
            at += string::plain_bytes(&bytes[at..]);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(());
                }
                Some(b'\\') => at += string::escape_bytes(&bytes[at..]).ok_or(JsonError::Syntax)?,
                _ => return Err(JsonError::Syntax),
            }
        }
    }

    fn pass_number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.pass_digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.pass_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.pass_digits()?;
        }
        Ok(())
    }

    fn pass_digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(JsonError::Syntax) }
    }

    fn pass_literal(&mut self, literal: &str) -> Result<(), JsonError> {
        if self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            self.at += literal.len();
            Ok(())
        } else {
            Err(JsonError::Syntax)
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.white_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn white_space(&mut self) {
        // One comparison where there is none, which is the rule.
        while let Some(byte) = self.peek().filter(|&byte| byte <= b' ') {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return;
            }
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

// === impl Nesting ===

impl Nesting {
    fn open(&mut self, object: bool, depth_max: usize) -> Result<(), JsonError> {
        if self.depth == depth_max {
            return Err(JsonError::TooDeep);
        }
        self.depth += 1;
        self.kinds = (self.kinds << 1) | u128::from(object);
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
        self.kinds >>= 1;
    }

    fn in_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}
