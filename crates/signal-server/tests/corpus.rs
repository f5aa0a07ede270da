//! Replays the corpus of the fuzz target that reads frames.

use std::{fs, path::Path};

#[path = "../../../fuzz/checks/frame.rs"]
mod frame;

#[test]
fn frame_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/frame");
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is committed") {
        let path = entry.expect("the folder can be read").path();
        frame::check(&fs::read(&path).expect("the input can be read"));
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}
