//! A line of the first table: what was measured, of Signal and of the floor, and what it is held
//! against.

use std::io::{self, Write};

use super::{maximum, median, minimum};
use crate::rows::STRUCTURE_FACTOR;

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    /// What names it in files.
    pub key: String,
    /// What the table says.
    pub title: String,
    /// The unit of the values.
    pub unit: &'static str,
    /// Signal's value in each round.
    pub signal: Vec<f64>,
    /// The floor's.
    pub floor: Vec<f64>,
    /// The rounds' ratios; none where a ratio says nothing.
    pub ratios: Vec<f64>,
    /// What it is held against.
    pub verdict: Option<Verdict>,
}

/// What was measured, held against its budget.
#[derive(Debug, Clone)]
pub struct Verdict {
    budget: String,
    text: &'static str,
}

// === impl Verdict ===

impl Verdict {
    /// The smaller, the better.
    pub fn at_most(measured: f64, budget: f64, unit: &str) -> Self {
        let text = if measured <= budget {
            "pass"
        } else if measured <= budget * STRUCTURE_FACTOR {
            "miss"
        } else {
            "MISS: beyond 1.3 × the budget, not the designed structure"
        };
        Self { budget: format!("≤ {budget:.2} {unit}").trim_end().to_owned(), text }
    }

    /// The greater, the better.
    pub fn at_least(measured: f64, budget: f64, unit: &str) -> Self {
        let Self { text, .. } = Self::at_most(1.0 / measured, 1.0 / budget, unit);
        Self { budget: format!("≥ {budget:.2} {unit}").trim_end().to_owned(), text }
    }

    pub(super) fn text(&self) -> &'static str {
        self.text
    }
}

// === impl Line ===

impl Line {
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let value = |values: &[f64]| match values {
            [] => "-".to_owned(),
            values => format!("{:.2} {}", median(values), self.unit),
        };
        let (ratio, spread) = match (minimum(&self.ratios), maximum(&self.ratios)) {
            (Some(low), Some(high)) => {
                (format!("{:.2}", median(&self.ratios)), format!("({low:.2}–{high:.2})"))
            }
            _ => ("-".to_owned(), String::new()),
        };
        let (budget, verdict) = match &self.verdict {
            Some(verdict) => (verdict.budget.as_str(), verdict.text),
            None => ("-", "-"),
        };
        writeln!(
            out,
            "{:<30} {:>12} {:>12} {ratio:>7} {spread:>13} {budget:>12}  {verdict}",
            self.title,
            value(&self.signal),
            value(&self.floor),
        )
    }

    /// One line of a file: key, unit, budget, verdict, then Signal's values, the floor's and the
    /// ratios, each with commas between.
    pub(super) fn write_tsv(&self, out: &mut impl Write) -> io::Result<()> {
        let list = |values: &[f64]| {
            let values: Vec<String> = values.iter().map(|value| format!("{value:.4}")).collect();
            values.join(",")
        };
        let (budget, verdict) = match &self.verdict {
            Some(verdict) => (verdict.budget.as_str(), verdict.text),
            None => ("", ""),
        };
        let verdict = verdict.split(':').next().unwrap_or_default();
        writeln!(
            out,
            "{}\t{}\t{}\t{budget}\t{verdict}\t{}\t{}\t{}",
            self.key,
            self.title,
            self.unit,
            list(&self.signal),
            list(&self.floor),
            list(&self.ratios),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_held_against_its_budget() {
        assert_eq!(Verdict::at_most(1.10, 1.10, "").text(), "pass");
        assert_eq!(Verdict::at_most(1.40, 1.10, "").text(), "miss");
        assert!(Verdict::at_most(1.44, 1.10, "").text().starts_with("MISS"));
        assert_eq!(Verdict::at_least(0.80, 0.80, "").text(), "pass");
        assert_eq!(Verdict::at_least(0.79, 0.80, "").text(), "miss");
    }
}
