//! Prints the table of close codes as the module that JavaScript clients use.
//!
//! ```text
//! cargo run -p signal-core --example close_codes > clients/js/src/close-codes.js
//! ```

use std::fmt::Write as _;
use std::io::Write as _;

use signal_core::close::CloseCode;

/// The text of `clients/js/src/close-codes.js`.
pub(crate) fn module() -> String {
    let mut text = String::from(
        "// Written by `cargo run -p signal-core --example close_codes`; a test compares it with close.rs.\n\
         \n\
         // What each close code means, and whether to come back.\n\
         export const CLOSE_CODES = {\n",
    );
    for code in CloseCode::ALL {
        let (number, name, again) = (code.code(), code.name(), code.reconnect());
        let _ = writeln!(text, "  {number}: {{ name: \"{name}\", again: {again} }},");
    }
    text.push_str("};\n");
    text
}

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(module().as_bytes())
}
