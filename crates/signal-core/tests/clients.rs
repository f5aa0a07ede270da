//! What clients in other languages have of the tables here is current.

#[path = "../examples/close_codes.rs"]
#[expect(dead_code, reason = "the example's own entry is not called here")]
mod close_codes;

#[test]
fn the_close_codes_of_the_javascript_client() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../clients/js/src/close-codes.js");
    let written = std::fs::read_to_string(path).expect("the module is there");
    assert_eq!(
        written,
        close_codes::module(),
        "cargo run -p signal-core --example close_codes > clients/js/src/close-codes.js"
    );
}
