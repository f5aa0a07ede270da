#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/encrypted.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::check(bytes));
