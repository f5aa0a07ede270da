//! A tiny fleet on a real Redis and on a real cluster, over real sockets: every message comes once, and
//! to no more edges than have somebody who listens. A run of minutes that loses messages, or counts
//! wrong, would be found out by this one of seconds.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

#[test]
fn a_fleet_is_measured_on_one_redis_and_on_a_cluster() {
    let own = Path::new(env!("CARGO_BIN_EXE_signal-bench"));
    let signal = own.with_file_name("signal");
    if !signal.is_file() {
        // Built with the whole workspace, which is how the tests are run that must pass.
        eprintln!("left out: {} was not built", signal.display());
        return;
    }
    let out = std::env::temp_dir().join(format!("signal-fleet-{}.tsv", std::process::id()));
    let mut command = Command::new(own);
    command.args(["fleet", "--edges", "2", "--per-edge", "20", "--seconds", "1", "--rest", "1"]);
    command.args(["--rate", "200", "--signal"]).arg(&signal).arg("--out").arg(&out);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("| everybody | cluster | 2 |"), "{text}");

    let lines = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    for bus in ["single", "cluster"] {
        let figures = figures(&lines, bus);
        for load in ["client", "user", "branch", "broadcast"] {
            let figure = |what: &str| figures[&*format!("{load}-{what}")];
            let (published, deliveries) = (figure("published"), figure("deliveries"));
            let members = match load {
                "branch" => 10.0,
                "broadcast" => 40.0,
                _ => 1.0,
            };
            close(deliveries, published * members, load);
            close(figure("receivers"), if members > 1.0 { 2.0 } else { 1.0 }, load);
            assert!(figure("p50") <= figure("p99"), "{load} on {bus}");
            for wrong in ["lost", "duplicated", "reordered"] {
                close(figure(wrong), 0.0, wrong);
            }
        }
        // Three channels of its own, and on each edge four branches, a merchant, a region, two default rooms.
        close(figures["channels-per-connection"], 3.0 + 2.0 * 8.0 / 40.0, bus);
        assert!(figures["storm-channels"] > 0.0 && figures["rest-time"] >= 1.0, "{lines}");
    }
}

fn figures<'a>(lines: &'a str, bus: &str) -> HashMap<&'a str, f64> {
    let fields = lines.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let own = fields.filter(|fields| fields[0] == bus);
    own.map(|fields| (fields[2], fields[4].parse().expect("a figure is a number"))).collect()
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() < 1e-3, "{what}: {found}, not {expected}");
}
