//! Medians, ratios and the two tables.
//!
//! Pure: readings in, text out. A ratio is the median of the rounds' own ratios, because the two
//! turns of a round are neighbours in time and a machine drifts.

mod line;
mod privacy;

use std::io::{self, Write};

pub use self::line::{Line, Verdict};
pub use self::privacy::PrivacyRound;

use crate::driver::Integrity;
use crate::rows::{Budget, IDLE_CPU_BUDGET, IDLE_KIB_BUDGET, PrivacyRow, TrafficRow};
use crate::scenario::workers;
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
    /// Lines of the scenarios.
    pub lines: Vec<Line>,
    /// Two workers against one.
    pub workers: Vec<workers::Reading>,
}

// === impl Report ===

impl Report {
    /// Writes both tables.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_budgets(out)?;
        privacy::write(out, &self.privacy)?;
        self.write_details(out)?;
        self.write_workers(out)?;
        self.write_disturbance(out)
    }

    /// What went wrong in all turns of both servers.
    pub fn integrity(&self) -> Integrity {
        self.readings().fold(Integrity::default(), |sum, reading| sum.and(reading.integrity))
    }

    fn write_budgets(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "\n{:<30} {:>12} {:>12} {:>7} {:>13} {:>12}  verdict",
            "row", "signal", "floor", "ratio", "(rounds)", "budget"
        )?;
        for line in self.all_lines() {
            line.write(out)?;
        }
        Ok(())
    }

    /// Writes the lines of the first table as tab-separated values.
    pub fn write_tsv(&self, out: &mut impl Write) -> io::Result<()> {
        self.all_lines().iter().try_for_each(|line| line.write_tsv(out))
    }

    fn all_lines(&self) -> Vec<Line> {
        let idle = if self.idle.is_empty() { Vec::new() } else { idle_lines(&self.idle) };
        let traffic = self.traffic.iter().map(traffic_line);
        let privacy = self.privacy.iter().map(|(row, rounds)| privacy::line(row, rounds));
        traffic.chain(privacy).chain(idle).chain(self.lines.iter().cloned()).collect()
    }

    fn write_workers(&self, out: &mut impl Write) -> io::Result<()> {
        if self.workers.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\ntwo workers of one, on two cores {:>14} {:>14} {:>7} {:>9} {:>9} {:>7}",
            "one, per s", "two, per s", "ratio", "one, µs", "two, µs", "ratio"
        )?;
        for workers::Reading { title, one, two } in &self.workers {
            let rates = [one, two].map(|reading| count(reading.deliveries) / reading.seconds);
            let costs = [one, two].map(cost_micros);
            writeln!(
                out,
                "{title:<32} {:>14.0} {:>14.0} {:>7.2} {:>9.2} {:>9.2} {:>7.2}",
                rates[0],
                rates[1],
                rates[1] / rates[0],
                costs[0],
                costs[1],
                costs[1] / costs[0]
            )?;
        }
        Ok(())
    }

    fn write_details(&self, out: &mut impl Write) -> io::Result<()> {
        if self.traffic.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\n{:<27} {:<7} {:>12} {:>7} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>9}  lost/dup/reordered",
            "row",
            "server",
            "deliveries/s",
            "per rd",
            "p50 µs",
            "p99 µs",
            "99.9 µs",
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

/// CPU of the server per delivery in microseconds, which is seconds per million.
pub fn cost_micros(reading: &TrafficReading) -> f64 {
    reading.server_cpu * 1e6 / count(reading.deliveries)
}

/// The rounds' ratios of Signal's values to the floor's.
pub fn ratios(signal: &[f64], floor: &[f64]) -> Vec<f64> {
    signal.iter().zip(floor).map(|(ours, floor)| ours / floor).collect()
}

fn traffic_line((row, rounds): &(TrafficRow, Vec<Round<TrafficReading>>)) -> Line {
    let value = |reading: &TrafficReading| match (row.budget, reading.latency) {
        (Budget::P99(_), Some(latency)) => count(latency.p99_micros),
        _ => cost_micros(reading),
    };
    let signal: Vec<f64> = rounds.iter().map(|round| value(&round.signal)).collect();
    let floor: Vec<f64> = rounds.iter().map(|round| value(&round.floor)).collect();
    let ratios = ratios(&signal, &floor);
    let verdict = match row.budget {
        Budget::Cpu(budget) | Budget::P99(budget) => {
            Some(Verdict::at_most(median(&ratios), budget, "×"))
        }
        Budget::None => None,
    };
    let (key, title) = (row.key.to_owned(), row.title.to_owned());
    Line { key, title, unit: "µs", signal, floor, ratios, verdict }
}

fn idle_line(
    key: &str,
    title: &str,
    unit: &'static str,
    (signal, floor): (Vec<f64>, Vec<f64>),
    budget: Option<f64>,
) -> Line {
    Line {
        key: key.to_owned(),
        title: title.to_owned(),
        unit,
        verdict: budget.map(|budget| Verdict::at_most(median(&signal), budget, unit)),
        signal,
        floor,
        ratios: Vec::new(),
    }
}

fn idle_lines(rounds: &[Round<IdleReading>]) -> Vec<Line> {
    let both = |pick: fn(&IdleReading) -> Option<f64>| -> (Vec<f64>, Vec<f64>) {
        let signal = rounds.iter().filter_map(|round| pick(&round.signal)).collect();
        (signal, rounds.iter().filter_map(|round| pick(&round.floor)).collect())
    };
    let memory = both(|reading| Some(reading.kib_per_connection));
    let rest = both(|reading| reading.rest_micros);
    let connect = both(|reading| Some(reading.connect_micros));
    let ratios = ratios(&connect.0, &connect.1);
    vec![
        idle_line("idle", "resident per idle connection", "KiB", memory, Some(IDLE_KIB_BUDGET)),
        idle_line("idle-cpu", "CPU per idle connection", "µs/s", rest, Some(IDLE_CPU_BUDGET)),
        Line { ratios, ..idle_line("connect", "connect", "µs", connect, None) },
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
    let latencies = |pick: fn(&crate::driver::Latency) -> u64| {
        let known = readings.iter().filter_map(|reading| reading.latency.as_ref().map(pick));
        let known: Vec<f64> = known.map(count).collect();
        if known.is_empty() { "-".to_owned() } else { format!("{:.0}", median(&known)) }
    };
    let sum = readings.iter().fold(Integrity::default(), |sum, reading| sum.and(reading.integrity));
    writeln!(
        out,
        "{title:<27} {server:<7} {:>12.0} {:>7.1} {:>8} {:>8} {:>8} {:>6.0}% {:>6.0}% {:>6.0}% {:>9.2}  {}/{}/{}",
        over(|reading| count(reading.deliveries) / reading.seconds),
        over(|reading| count(reading.deliveries) / count(reading.reads)),
        latencies(|latency| latency.p50_micros),
        latencies(|latency| latency.p99_micros),
        latencies(|latency| latency.p999_micros),
        over(|reading| reading.server_cpu * 100.0 / reading.seconds),
        over(|reading| reading.server_waited * 100.0 / reading.seconds),
        over(|reading| reading.driver_cpu * 100.0 / reading.seconds),
        over(|reading| reading.redis_cpu * 1e6 / count(reading.deliveries)),
        sum.lost,
        sum.duplicated,
        sum.reordered,
    )
}

/// A count as a number.
#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
pub fn count(value: u64) -> f64 {
    value as f64
}

/// The median; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The least; none of nothing.
pub fn minimum(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// The greatest; none of nothing.
pub fn maximum(values: &[f64]) -> Option<f64> {
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
