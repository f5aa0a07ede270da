//! Turns of the floor, over a real Redis and real sockets: whatever the load, every message comes
//! once and in order. A driver that loses messages, or does not see that one is lost, would make
//! every number it prints worthless.

use std::path::PathBuf;
use std::time::Duration;

use signal_benches::rows::TRAFFIC_ROWS;
use signal_benches::turn::{self, Setting, Subject};

#[test]
fn the_floor_delivers_everything_once_under_every_load() {
    let setting = Setting {
        server_core: 0,
        driver_core: 0,
        workers: 1,
        warm_up: Duration::from_millis(100),
        duration: Duration::from_millis(200),
    };
    let floor = Subject::Floor(PathBuf::from(env!("CARGO_BIN_EXE_signal-bench")));
    for row in TRAFFIC_ROWS {
        let reading = turn::traffic(&setting, &floor, &row).unwrap();
        assert!(reading.integrity.is_whole(), "{}: {:?}", row.key, reading.integrity);
        assert!(reading.deliveries > 0 && reading.server_cpu > 0.0, "{}", row.key);
        assert_eq!(reading.latency.is_some(), row.fixed_rate, "{}", row.key);
    }
}
