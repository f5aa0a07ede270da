//! Medians, ratios and the two tables.
//!
//! Pure: readings in, text out. A ratio is the median of the rounds' own ratios, because the two
//! turns of a round are neighbours in time and a machine drifts.

mod privacy;

use std::io::{self, Write};

pub use self::privacy::PrivacyRound;

use crate::driver::Integrity;
use crate::rows::{IDLE_KIB_BUDGET, PrivacyRow, STRUCTURE_FACTOR, TrafficRow};
use crate::turn::{IdleReading, TrafficReading};

/// Share of the time that a server may wait for its core before its turn counts as disturbed.
const WAITED_SHARE_MAX: f64 = 0.03;

/// One round of a row: the two servers took their turns one after the other.
#[derive(Debug, Clone, Copy)]
pub struct Round<Reading> {
    /// Signal's reading.
    pub signal: Reading,
    /// The floor's.
    pub floor: Reading,
}

/// All rounds of all rows that were measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows with traffic.
    pub traffic: Vec<(TrafficRow, Vec<Round<TrafficReading>>)>,
    /// Rows of encryption.
    pub privacy: Vec<(PrivacyRow, Vec<PrivacyRound>)>,
    /// Rounds of the memory row.
    pub idle: Vec<Round<IdleReading>>,
}

/// A line of the first table.
struct Line {
    title: String,
    unit: &'static str,
    signal: f64,
    floor: f64,
    /// The rounds' ratios; none where a ratio says nothing.
    ratios: Vec<f64>,
    /// What is held against the budget, and the budget.
    verdict: Option<(f64, f64, String)>,
}

// === impl Report ===

impl Report {
    /// Writes both tables.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        if !self.traffic.is_empty() || !self.idle.is_empty() {
            self.write_budgets(out)?;
        }
        privacy::write(out, &self.privacy)?;
        self.write_details(out)?;
        self.write_disturbance(out)
    }

    /// What went wrong in all turns of both servers.
    pub fn integrity(&self) -> Integrity {
        self.readings().fold(Integrity::default(), |sum, reading| sum.and(reading.integrity))
    }

    fn write_budgets(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\n{:<28} {:>12} {:>12} {:>7} {:>13} {:>9}  verdict",
            "row", "signal", "floor", "ratio", "(rounds)", "budget"
        )?;
        let idle = (!self.idle.is_empty()).then(|| idle_lines(&self.idle));
        for line in self.traffic.iter().map(traffic_line).chain(idle.into_iter().flatten()) {
            line.write(out)?;
        }
        Ok(())
    }

    fn write_details(&self, out: &mut impl Write) -> io::Result<()> {
        if self.traffic.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<22} {:<7} {:>12} {:>7} {:>9} {:>9} {:>7} {:>7} {:>7} {:>9}  lost/dup/reordered",
            "row",
            "server",
            "deliveries/s",
            "per rd",
            "p50 µs",
            "p99 µs",
            "server",
            "waited",
            "driver",
            "redis µs"
        )?;
        for (row, rounds) in &self.traffic {
            let signal: Vec<_> = rounds.iter().map(|round| round.signal).collect();
            let floor: Vec<_> = rounds.iter().map(|round| round.floor).collect();
            write_detail(out, row.title, "signal", &signal)?;
            write_detail(out, row.title, "floor", &floor)?;
        }
        writeln!(
            out,
            "\nper rd: deliveries per read of the driver. server, driver: share of a core.\n\
             waited: share of the time that the server was ready, but something else ran.\n\
             redis µs: CPU of Redis per delivery, which is seconds per million."
        )
    }

    fn readings(&self) -> impl Iterator<Item = TrafficReading> {
        let traffic = self.traffic.iter().flat_map(|(_, rounds)| rounds);
        let private = self.privacy.iter().flat_map(|(_, rounds)| rounds);
        traffic
            .flat_map(|round| [round.signal, round.floor])
            .chain(private.flat_map(|round| [round.clear, round.session, round.room]))
    }

    /// Says so if something else ran on the server's core.
    fn write_disturbance(&self, out: &mut impl Write) -> io::Result<()> {
        let disturbed =
            |reading: &TrafficReading| reading.server_waited > reading.seconds * WAITED_SHARE_MAX;
        match self.readings().filter(disturbed).count() {
            0 => Ok(()),
            turns => writeln!(
                out,
                "\nThe machine was not quiet: in {turns} turns something else ran on the \
                 server's core. Run again."
            ),
        }
    }
}

// === impl Line ===

impl Line {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let value = |number: f64| format!("{number:.2} {}", self.unit);
        let (ratio, spread) = match (minimum(&self.ratios), maximum(&self.ratios)) {
            (Some(low), Some(high)) => {
                (format!("{:.2}", median(&self.ratios)), format!("({low:.2}–{high:.2})"))
            }
            _ => ("-".to_owned(), String::new()),
        };
        let (budget, verdict) = match &self.verdict {
            Some((measured, budget, text)) => (text.clone(), verdict(*measured, *budget)),
            None => ("-".to_owned(), "-"),
        };
        writeln!(
            out,
            "{:<28} {:>12} {:>12} {ratio:>7} {spread:>13} {budget:>9}  {verdict}",
            self.title,
            value(self.signal),
            value(self.floor),
        )
    }
}

/// CPU of the server per delivery in microseconds, which is seconds per million.
pub fn cost_micros(reading: &TrafficReading) -> f64 {
    reading.server_cpu * 1e6 / count(reading.deliveries)
}

fn traffic_line((row, rounds): &(TrafficRow, Vec<Round<TrafficReading>>)) -> Line {
    let costs = |pick: fn(&Round<TrafficReading>) -> f64| rounds.iter().map(pick).collect();
    let signal: Vec<f64> = costs(|round| cost_micros(&round.signal));
    let floor: Vec<f64> = costs(|round| cost_micros(&round.floor));
    let ratios: Vec<f64> = signal.iter().zip(&floor).map(|(ours, floor)| ours / floor).collect();
    Line {
        title: row.title.to_owned(),
        unit: "µs",
        signal: median(&signal),
        floor: median(&floor),
        verdict: Some((median(&ratios), row.budget, format!("{:.2}", row.budget))),
        ratios,
    }
}

fn idle_lines(rounds: &[Round<IdleReading>]) -> [Line; 2] {
    let values =
        |pick: fn(&Round<IdleReading>) -> f64| -> Vec<f64> { rounds.iter().map(pick).collect() };
    let signal = median(&values(|round| round.signal.kib_per_connection));
    let connect = values(|round| round.signal.connect_micros / round.floor.connect_micros);
    [
        Line {
            title: "resident per idle connection".to_owned(),
            unit: "KiB",
            signal,
            floor: median(&values(|round| round.floor.kib_per_connection)),
            ratios: Vec::new(),
            verdict: Some((signal, IDLE_KIB_BUDGET, format!("{IDLE_KIB_BUDGET:.2} KiB"))),
        },
        Line {
            title: "connect".to_owned(),
            unit: "µs",
            signal: median(&values(|round| round.signal.connect_micros)),
            floor: median(&values(|round| round.floor.connect_micros)),
            ratios: connect,
            verdict: None,
        },
    ]
}

fn write_detail(
    out: &mut impl Write,
    title: &str,
    server: &str,
    readings: &[TrafficReading],
) -> io::Result<()> {
    let over = |pick: fn(&TrafficReading) -> f64| -> f64 {
        median(&readings.iter().map(pick).collect::<Vec<_>>())
    };
    let latencies = |pick: fn(&crate::driver::Latency) -> u32| {
        let known = readings.iter().filter_map(|reading| reading.latency.as_ref().map(pick));
        let known: Vec<f64> = known.map(f64::from).collect();
        if known.is_empty() { "-".to_owned() } else { format!("{:.0}", median(&known)) }
    };
    let sum = readings.iter().fold(Integrity::default(), |sum, reading| sum.and(reading.integrity));
    writeln!(
        out,
        "{title:<22} {server:<7} {:>12.0} {:>7.1} {:>9} {:>9} {:>6.0}% {:>6.0}% {:>6.0}% {:>9.2}  {}/{}/{}",
        over(|reading| count(reading.deliveries) / reading.seconds),
        over(|reading| count(reading.deliveries) / count(reading.reads)),
        latencies(|latency| latency.p50_micros),
        latencies(|latency| latency.p99_micros),
        over(|reading| reading.server_cpu * 100.0 / reading.seconds),
        over(|reading| reading.server_waited * 100.0 / reading.seconds),
        over(|reading| reading.driver_cpu * 100.0 / reading.seconds),
        over(|reading| reading.redis_cpu * 1e6 / count(reading.deliveries)),
        sum.lost,
        sum.duplicated,
        sum.reordered,
    )
}

fn verdict(measured: f64, budget: f64) -> &'static str {
    if measured <= budget {
        "pass"
    } else if measured <= budget * STRUCTURE_FACTOR {
        "miss"
    } else {
        "MISS: beyond 1.3 × the budget, not the designed structure"
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}

/// The median; NaN of nothing.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

fn minimum(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

fn maximum(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!(median(&[]).is_nan());
        for (values, expected) in [(&[3.0, 1.0, 2.0][..], 2.0), (&[4.0, 1.0], 2.5), (&[7.0], 7.0)] {
            assert_eq!(median(values).to_bits(), f64::to_bits(expected));
        }
    }

    #[test]
    fn a_row_is_held_against_its_budget() {
        assert_eq!(verdict(1.10, 1.10), "pass");
        assert_eq!(verdict(1.40, 1.10), "miss");
        assert!(verdict(1.44, 1.10).starts_with("MISS"));
    }

    #[test]
    fn what_is_lost_in_any_turn_shows() {
        let reading = TrafficReading {
            deliveries: 1_000_000,
            reads: 1_000,
            seconds: 1.0,
            server_cpu: 2.0,
            server_waited: 0.0,
            redis_cpu: 0.1,
            driver_cpu: 0.1,
            latency: None,
            integrity: Integrity::default(),
        };
        let torn =
            TrafficReading { integrity: Integrity { lost: 2, ..Integrity::default() }, ..reading };
        let rounds = vec![Round { signal: reading, floor: torn }];
        let report =
            Report { traffic: vec![(crate::rows::TRAFFIC_ROWS[0], rounds)], ..Report::default() };
        assert_eq!(report.integrity().lost, 2);
        let mut text = Vec::new();
        report.write(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("2.00 µs") && text.contains("2/0/0"), "{text}");
    }
}
