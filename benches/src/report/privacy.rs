//! The table of encryption: what a delivery costs in clear, under session keys, under a room key.

use std::io::{self, Write};

use super::{Line, TrafficReading, Verdict, cost_micros, count, maximum, median, minimum, ratios};
use crate::rows::{PrivacyRow, ROOM_KEY_BUDGET};

/// One round of a row: the three ways took their turns one after another.
#[derive(Debug, Clone, Copy)]
pub struct PrivacyRound {
    /// Nothing is sealed.
    pub clear: TrafficReading,
    /// Each message is sealed for each client.
    pub session: TrafficReading,
    /// Each message is sealed once.
    pub room: TrafficReading,
}

pub(super) fn write(
    out: &mut impl Write,
    rows: &[(PrivacyRow, Vec<PrivacyRound>)],
) -> io::Result<()> {
    for (row, rounds) in rows {
        writeln!(
            out,
            "\n{:<22} {:>10} {:>9} {:>13} {:>12} {:>7} {:>7} {:>7}  verdict",
            row.title, "µs", "of clear", "(rounds)", "deliveries/s", "per rd", "server", "driver"
        )?;
        write_way(out, "in clear", rounds, |round| round.clear, None)?;
        write_way(out, "session keys", rounds, |round| round.session, None)?;
        write_way(out, "room key", rounds, |round| round.room, Some(ROOM_KEY_BUDGET))?;
    }
    Ok(())
}

fn write_way(
    out: &mut impl Write,
    title: &str,
    rounds: &[PrivacyRound],
    pick: fn(&PrivacyRound) -> TrafficReading,
    budget: Option<f64>,
) -> io::Result<()> {
    let over = |value: fn(TrafficReading) -> f64| -> f64 {
        median(&rounds.iter().map(|round| value(pick(round))).collect::<Vec<_>>())
    };
    let ratio = |round| cost_micros(&pick(round)) / cost_micros(&round.clear);
    let ratios: Vec<f64> = rounds.iter().map(ratio).collect();
    let low = minimum(&ratios).unwrap_or(f64::NAN);
    let high = maximum(&ratios).unwrap_or(f64::NAN);
    let judged = budget.map_or_else(String::new, |budget| {
        let verdict = Verdict::at_most(median(&ratios), budget, "");
        format!("{} (budget {budget:.2})", verdict.text())
    });
    writeln!(
        out,
        "  {title:<20} {:>10.2} {:>9.2} {:>13} {:>12.0} {:>7.1} {:>6.0}% {:>6.0}%  {judged}",
        over(|reading| cost_micros(&reading)),
        median(&ratios),
        format!("({low:.2}–{high:.2})"),
        over(|reading| count(reading.deliveries) / reading.seconds),
        over(|reading| count(reading.deliveries) / count(reading.reads)),
        over(|reading| reading.server_cpu * 100.0 / reading.seconds),
        over(|reading| reading.driver_cpu * 100.0 / reading.seconds),
    )
}

/// The line of the first table: a room key beside the same in clear.
pub(super) fn line(row: &PrivacyRow, rounds: &[PrivacyRound]) -> Line {
    let costs = |pick: fn(&PrivacyRound) -> TrafficReading| -> Vec<f64> {
        rounds.iter().map(|round| cost_micros(&pick(round))).collect()
    };
    let (keyed, clear) = (costs(|round| round.room), costs(|round| round.clear));
    let ratios = ratios(&keyed, &clear);
    Line {
        key: row.key.to_owned(),
        title: format!("encrypted {}", row.title),
        unit: "µs",
        verdict: Some(Verdict::at_most(median(&ratios), ROOM_KEY_BUDGET, "×")),
        signal: keyed,
        floor: clear,
        ratios,
    }
}
