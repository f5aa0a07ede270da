//! Replays the corpora of the fuzz targets that read this crate's formats.

use std::{fs, path::Path};

#[path = "../../../fuzz/checks/client_message.rs"]
mod client_message;
#[cfg(feature = "crypto")]
#[path = "../../../fuzz/checks/encrypted.rs"]
mod encrypted;
#[path = "../../../fuzz/checks/envelope.rs"]
mod envelope;

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("the folder can be read").path();
        check(&fs::read(&path).expect("the input can be read"));
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

#[test]
fn client_message_corpus() {
    replay("client_message", client_message::check);
}

#[test]
fn envelope_corpus() {
    replay("envelope", envelope::check);
}

#[cfg(feature = "crypto")]
#[test]
fn encrypted_corpus() {
    replay("encrypted", encrypted::check);
}
