//! The guard: instruction counts of the micro-benchmarks against those that are committed.
//!
//! ```text
//! guard                compares with benches/baseline.txt
//! guard --write        writes it
//! ```
//!
//! Counts the instructions of each benchmark's measured region with callgrind, so that neither the
//! machine's speed nor what else runs on it matters. What the kernel does is not in them. Says what
//! grew by more than 5 %, and exits 1 if something grew by more than 15 %; 2 if it cannot count.
//! Another compiler makes other code: then what grew is said, and nothing fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Growth that is worth a line, and growth that fails.
const NOTED: f64 = 0.05;
const FAILED: f64 = 0.15;

/// What every measured region has in its name.
const REGION: &str = "*measured_region*";

const HEADER: &str = "# Instructions per run of each micro-benchmark (`signal-micro`), counted by callgrind.\n\
                      # `just baseline` writes this file; a change of it belongs into the commit that explains it.\n";

/// Counts by benchmark.
type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(message) => {
            eprintln!("guard: {message}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let micro = std::env::current_exe().map_err(|error| error.to_string())?;
    let micro = micro.with_file_name("signal-micro");
    let baseline = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.txt"));
    let counts = count_all(&micro)?;
    let compiler = first_line(Command::new("rustc").arg("--version"))?;
    if std::env::args().any(|argument| argument == "--write") {
        let lines = counts.iter().map(|(name, count)| format!("{name} {count}\n"));
        let text = format!("{HEADER}# {compiler}\n{}", lines.collect::<String>());
        std::fs::write(&baseline, text).map_err(|error| error.to_string())?;
        say(&format!("wrote {} counts to {}", counts.len(), baseline.display()));
        return Ok(true);
    }
    let text = std::fs::read_to_string(&baseline)
        .map_err(|error| format!("cannot read {}: {error}", baseline.display()))?;
    let same_compiler = text.lines().any(|line| line.strip_prefix("# ") == Some(compiler.as_str()));
    let (lines, worst) = compare(&parse(&text), &counts);
    for line in &lines {
        say(line);
    }
    if !same_compiler {
        say(&format!("the baseline is of another compiler than {compiler}: nothing fails"));
    }
    Ok(worst <= FAILED || !same_compiler)
}

/// Counts every benchmark, one process each.
fn count_all(micro: &Path) -> Result<Counts, String> {
    let list = Command::new(micro).arg("--list").output();
    let list = list.map_err(|error| format!("cannot run {}: {error}", micro.display()))?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let names = list.lines().filter_map(|line| line.split(' ').next());
    names.map(|name| Ok((name.to_owned(), count(micro, name)?))).collect()
}

/// Instructions of one benchmark's region.
fn count(micro: &Path, name: &str) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={REGION}"))
        .arg(micro)
        .arg(name)
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name} ended with {}:\n{log}", output.status));
    }
    // `==123== Collected : 4567`
    let collected = log.lines().find_map(|line| line.split_once("Collected : "));
    let count = collected.and_then(|(_, count)| count.trim().parse().ok());
    count.filter(|count| *count > 0).ok_or_else(|| format!("{name} was not counted:\n{log}"))
}

/// What there is to say, and the greatest growth.
fn compare(baseline: &Counts, counts: &Counts) -> (Vec<String>, f64) {
    let mut lines = Vec::new();
    let mut worst = 0.0_f64;
    for (name, count) in counts {
        let Some(before) = baseline.get(name) else {
            lines.push(format!("{name:<26} {count:>12}  is not in the baseline"));
            continue;
        };
        let growth = share(*count, *before) - 1.0;
        worst = worst.max(growth);
        let verdict = match growth {
            growth if growth > FAILED => "FAILED",
            growth if growth > NOTED => "grew",
            growth if growth < -NOTED => "shrank: `just baseline` keeps it so",
            _ => "",
        };
        let percent = growth * 100.0;
        let line = format!("{name:<26} {before:>12} -> {count:>12} {percent:>+7.1} %  {verdict}");
        lines.push(line.trim_end().to_owned());
    }
    for name in baseline.keys().filter(|name| !counts.contains_key(*name)) {
        lines.push(format!("{name:<26} is in the baseline and was not counted"));
    }
    (lines, worst)
}

fn parse(text: &str) -> Counts {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let fields = lines.filter_map(|line| line.split_once(' '));
    fields.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn share(count: u64, before: u64) -> f64 {
    count as f64 / before as f64
}

fn first_line(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> Counts {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn only_growth_beyond_the_limit_fails() {
        let baseline = parse("# rustc 1\na 1000\nb 1000\nc 1000\n");
        let (lines, worst) = compare(&baseline, &counts(&[("a", 1040), ("b", 1100), ("c", 500)]));
        assert!(worst <= FAILED);
        assert!(lines[0].ends_with('%') && lines[1].ends_with("grew"), "{lines:?}");
        assert!(lines[2].contains("shrank"));
        let (lines, worst) = compare(&baseline, &counts(&[("a", 1151), ("d", 1)]));
        assert!(worst > FAILED && lines[0].ends_with("FAILED"), "{lines:?}");
        assert!(lines[1].contains("not in the baseline"));
        assert!(lines[2..].iter().all(|line| line.contains("was not counted")));
    }
}
