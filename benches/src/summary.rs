//! What several runs come to: the tables and charts of `docs/performance.md` and `docs/million.md`.
//!
//! Pure but for the files it is given: reads what `--out` wrote, writes Markdown and SVG. Of several
//! runs it shows the lowest and the highest, so that what does not repeat can be seen.

mod fleet;

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use self::fleet::Figures;
pub use self::fleet::fleet_tables;
use crate::report::{maximum, median, minimum};

/// What is to be summed up.
#[derive(Debug, Clone, clap::Parser)]
pub struct Options {
    /// Runs of `signal-bench --out`.
    #[arg(long = "run", value_name = "FILE")]
    runs: Vec<PathBuf>,
    /// Runs of `signal-bench --peers … --out`.
    #[arg(long, value_name = "FILE")]
    peers: Vec<PathBuf>,
    /// Runs of `signal-bench fleet --out`.
    #[arg(long, value_name = "FILE")]
    fleet: Vec<PathBuf>,
    /// Where the charts go.
    #[arg(long, value_name = "DIRECTORY", default_value = "docs")]
    into: PathBuf,
}

/// A line of the first table, over all runs.
#[derive(Debug, Default)]
struct Line {
    title: String,
    unit: String,
    budget: String,
    /// In each run: the verdict, and the medians of its rounds.
    verdicts: Vec<String>,
    signal: Vec<f64>,
    floor: Vec<f64>,
    ratios: Vec<f64>,
}

/// What one server needed for one row, over all rounds of all runs.
#[derive(Debug, Clone)]
struct Cost {
    row: String,
    server: String,
    unit: String,
    values: Vec<f64>,
}

/// A bar of a chart: its name, its value from the lowest to the highest, and a mark.
#[derive(Debug)]
struct Bar {
    name: String,
    low: f64,
    middle: f64,
    high: f64,
    mark: Option<f64>,
    is_ours: bool,
}

/// Sums up; returns the tables.
pub fn run(options: &Options) -> io::Result<String> {
    let mut text = String::new();
    if !options.runs.is_empty() {
        let lines = read_runs(&options.runs)?;
        text += &budget_table(&lines);
        let chart =
            chart("Signal as a multiple of the floor; the line is the budget", &ratio_bars(&lines));
        std::fs::write(options.into.join("performance-floor.svg"), chart)?;
    }
    if !options.peers.is_empty() {
        let costs = read_peers(&options.peers)?;
        text += &peer_table(&costs);
        for (file, title, rows) in [
            (
                "performance-peers.svg",
                "CPU per delivery, µs",
                &is_delivery as &dyn Fn(&Cost) -> bool,
            ),
            ("performance-memory.svg", "Resident KiB per idle connection", &|cost| {
                cost.unit == "KiB"
            }),
        ] {
            let bars = peer_bars(&costs, rows);
            std::fs::write(options.into.join(file), chart(title, &bars))?;
        }
    }
    if !options.fleet.is_empty() {
        let mut figures = Figures::default();
        for path in &options.fleet {
            figures.add(&std::fs::read_to_string(path)?);
        }
        text += &figures.tables();
        text += &figures.carried();
        for (file, title, bars) in figures.charts() {
            std::fs::write(options.into.join(file), chart(title, &bars))?;
        }
    }
    Ok(text)
}

fn is_delivery(cost: &Cost) -> bool {
    cost.unit == "µs" && cost.row != "connect"
}

fn read_runs(paths: &[PathBuf]) -> io::Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for path in paths {
        for fields in read(path)? {
            let [_, title, unit, budget, verdict, signal, floor, ratios] = &fields[..] else {
                continue;
            };
            let place = lines.iter().position(|line| line.title == *title).unwrap_or_else(|| {
                lines.push(Line { title: title.clone(), ..Line::default() });
                lines.len() - 1
            });
            let line = &mut lines[place];
            (line.unit, line.budget) = (unit.clone(), budget.clone());
            line.verdicts.push(verdict.clone());
            line.signal.extend(middle(signal));
            line.floor.extend(middle(floor));
            line.ratios.extend(middle(ratios));
        }
    }
    Ok(lines)
}

fn read_peers(paths: &[PathBuf]) -> io::Result<Vec<Cost>> {
    let mut costs: Vec<Cost> = Vec::new();
    for path in paths {
        for fields in read(path)? {
            let [row, server, unit, values] = &fields[..] else { continue };
            let known = costs.iter_mut().find(|cost| cost.row == *row && cost.server == *server);
            match known.filter(|cost| cost.unit == *unit) {
                Some(cost) => cost.values.extend(numbers(values)),
                None => costs.push(Cost {
                    row: row.clone(),
                    server: server.clone(),
                    unit: unit.clone(),
                    values: numbers(values),
                }),
            }
        }
    }
    costs.retain(|cost| !cost.values.is_empty());
    Ok(costs)
}

fn read(path: &Path) -> io::Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn numbers(list: &str) -> Vec<f64> {
    // Nothing was delivered in a turn whose cost is not finite.
    let values = list.split(',').filter_map(|value| value.parse().ok());
    values.filter(|value: &f64| value.is_finite()).collect()
}

fn middle(list: &str) -> Option<f64> {
    Some(median(&numbers(list))).filter(|value| !value.is_nan())
}

fn budget_table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| what | Signal | floor | ratio | budget | verdict |\n\
         |---|---|---|---|---|---|\n",
    );
    for line in lines {
        // Where there is a ratio, it is the ratio that has to repeat.
        let value = |values: &[f64]| match values {
            [] => String::new(),
            values if line.ratios.is_empty() => format!("{} {}", spread(values), line.unit),
            values => format!("{:.2} {}", median(values), line.unit),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            line.title,
            value(&line.signal),
            value(&line.floor),
            spread(&line.ratios),
            line.budget,
            verdicts(&line.verdicts),
        );
    }
    text
}

/// One verdict, or how many runs had which.
fn verdicts(verdicts: &[String]) -> String {
    let passed = verdicts.iter().filter(|verdict| *verdict == "pass").count();
    match verdicts.first().map(String::as_str) {
        None | Some("") => String::new(),
        Some(_) if passed == verdicts.len() => "pass".to_owned(),
        Some(_) if passed == 0 => "miss".to_owned(),
        Some(_) => format!("pass in {passed} of {}", verdicts.len()),
    }
}

fn spread(values: &[f64]) -> String {
    match (minimum(values), maximum(values)) {
        (Some(low), Some(high)) => format!("{:.2} ({low:.2}–{high:.2})", median(values)),
        _ => String::new(),
    }
}

/// Names in the order in which they first come.
fn in_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

fn peer_table(costs: &[Cost]) -> String {
    let servers = in_order(costs.iter().map(|cost| cost.server.as_str()));
    let mut text = format!("\n| what | {} |\n|---|", servers.join(" | "));
    text += &"---|".repeat(servers.len());
    text.push('\n');
    for row in in_order(costs.iter().map(|cost| cost.row.as_str())) {
        let unit = costs.iter().find(|cost| cost.row == row).map_or("", |cost| &cost.unit);
        let _ = write!(text, "| {row}, {unit} |");
        for server in &servers {
            let cost = costs.iter().find(|cost| cost.row == row && cost.server == *server);
            let _ = write!(text, " {} |", cost.map_or("–".to_owned(), |cost| spread(&cost.values)));
        }
        text.push('\n');
    }
    text
}

fn ratio_bars(lines: &[Line]) -> Vec<Bar> {
    let with_ratio = lines.iter().filter(|line| !line.ratios.is_empty());
    with_ratio
        .map(|line| Bar {
            mark: line.budget.split(' ').nth(1).and_then(|budget| budget.parse().ok()),
            ..bar(line.title.clone(), &line.ratios, true)
        })
        .collect()
}

fn peer_bars(costs: &[Cost], is_wanted: &dyn Fn(&Cost) -> bool) -> Vec<Bar> {
    let wanted = costs.iter().filter(|cost| is_wanted(cost));
    wanted
        .map(|cost| {
            bar(format!("{}: {}", cost.row, cost.server), &cost.values, cost.server == "Signal")
        })
        .collect()
}

fn bar(name: String, values: &[f64], is_ours: bool) -> Bar {
    let low = minimum(values).unwrap_or_default();
    let high = maximum(values).unwrap_or_default();
    Bar { name, low, middle: median(values), high, mark: None, is_ours }
}

/// Bars from the left, with whiskers from the lowest to the highest value.
fn chart(title: &str, bars: &[Bar]) -> String {
    const LEFT: f64 = 300.0;
    const WIDTH: f64 = 480.0;
    const STEP: f64 = 22.0;
    const TOP: f64 = 44.0;
    let longest = bars.iter().map(|bar| bar.high.max(bar.mark.unwrap_or(0.0)));
    let scale = WIDTH / longest.fold(f64::MIN_POSITIVE, f64::max);
    let rows = u32::try_from(bars.len()).map_or(0.0, f64::from);
    let height = TOP + STEP * rows + 12.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 {height}\" \
         font-family=\"sans-serif\" font-size=\"11\" fill=\"#222\">\
         <rect width=\"860\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-weight=\"600\">{title}</text>\n"
    );
    let mut top = TOP;
    for bar in bars {
        let fill = if bar.is_ours { "#3b6ea5" } else { "#b8b8b8" };
        let (width, middle) = (bar.middle * scale, top + 7.0);
        let (low, high) = (LEFT + bar.low * scale, LEFT + bar.high * scale);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"14\" fill=\"{fill}\"/>\
             <line x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"#222\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.2}</text>",
            LEFT - 8.0,
            top + 11.0,
            bar.name,
            high + 6.0,
            top + 11.0,
            bar.middle,
        );
        if let Some(mark) = bar.mark {
            let at = LEFT + mark * scale;
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"#c0392b\" \
                 stroke-width=\"2\"/>",
                top - 2.0,
                top + 16.0
            );
        }
        top += STEP;
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_shown_from_the_lowest_to_the_highest() {
        let line = Line {
            title: "room".to_owned(),
            unit: "µs".to_owned(),
            budget: "≤ 1.10 ×".to_owned(),
            verdicts: vec!["pass".to_owned(), "miss".to_owned(), "pass".to_owned()],
            signal: vec![2.0, 3.0, 4.0],
            floor: vec![2.0],
            ratios: vec![1.2, 1.0, 1.1],
        };
        let table = budget_table(&[line]);
        let expected =
            "| room | 3.00 µs | 2.00 µs | 1.10 (1.00–1.20) | ≤ 1.10 × | pass in 2 of 3 |";
        assert!(table.contains(expected), "{table}");
    }

    #[test]
    fn a_bar_ends_where_its_value_is() {
        let bars = [bar("one".to_owned(), &[1.0, 2.0], true), bar("two".to_owned(), &[4.0], false)];
        let svg = chart("t", &bars);
        assert!(svg.contains("width=\"180.0\"") && svg.contains("width=\"480.0\""), "{svg}");
    }
}
