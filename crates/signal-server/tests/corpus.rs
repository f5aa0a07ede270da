//! Replays the corpora of the fuzz targets that read frames and tokens.

use std::{fs, path::Path};

#[path = "../../../fuzz/checks/frame.rs"]
mod frame;
#[path = "../../../fuzz/checks/token.rs"]
mod token;

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
fn frame_corpus() {
    replay("frame", frame::check);
}

#[test]
fn token_corpus() {
    replay("token", token::check);
}
