//! Figures: a table for people, one JSON line each for programs.

use crate::stats::Samples;
use comfy_table::{Table, presets};
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The bench's name.
    pub(crate) bench: &'static str,
    /// What of it.
    pub(crate) metric: String,
    /// The unit of `p50` and `p99`.
    pub(crate) unit: &'static str,
    /// Median.
    pub(crate) p50: f64,
    /// 99th percentile.
    pub(crate) p99: f64,
    /// Samples.
    pub(crate) n: usize,
    /// What it is compared with, measured in the same run; empty for a floor itself.
    pub(crate) baseline: String,
    /// `p50` over the baseline's `p50`; 0 for a floor itself.
    pub(crate) ratio: f64,
    /// `local` or `lab`.
    pub(crate) host: &'static str,
    /// What performance.md asks for, as text; empty where nothing is asked.
    #[serde(skip)]
    pub(crate) reach: &'static str,
}

/// Collects figures of one run.
#[derive(Debug)]
pub(crate) struct Report {
    host: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty one for figures of `host`.
    pub(crate) const fn new(host: &'static str) -> Self {
        Self { host, figures: Vec::new() }
    }

    /// Adds a floor: a figure that others are compared with.
    pub(crate) fn floor(&mut self, bench: &'static str, name: &str, samples: &Samples) {
        self.value(bench, name, "us", (samples.p50_us(), samples.p99_us()), samples.len(), ("", 0.0), "");
    }

    /// Adds times compared with a floor in microseconds.
    pub(crate) fn times(
        &mut self,
        bench: &'static str,
        metric: &str,
        samples: &Samples,
        (baseline, baseline_us): (&str, f64),
        reach: &'static str,
    ) {
        let (p50, p99) = (samples.p50_us(), samples.p99_us());
        self.value(bench, metric, "us", (p50, p99), samples.len(), (baseline, p50 / baseline_us), reach);
    }

    /// Adds what was counted, as the mean of `n`.
    #[expect(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
    pub(crate) fn count(&mut self, bench: &'static str, metric: &str, sum: u64, n: usize) {
        let mean = sum as f64 / n.max(1) as f64;
        self.value(bench, metric, "each", (mean, mean), n, ("", 0.0), "");
    }

    /// Adds any figure.
    #[expect(clippy::too_many_arguments, reason = "one argument a column")]
    pub(crate) fn value(
        &mut self,
        bench: &'static str,
        metric: &str,
        unit: &'static str,
        (p50, p99): (f64, f64),
        n: usize,
        (baseline, ratio): (&str, f64),
        reach: &'static str,
    ) {
        let (metric, baseline) = (metric.to_owned(), baseline.to_owned());
        self.figures.push(Figure {
            bench,
            metric,
            unit,
            p50,
            p99,
            n,
            baseline,
            ratio,
            host: self.host,
            reach,
        });
    }

    /// Prints the JSON lines, and before them the table unless `only_json`.
    pub(crate) fn print(&self, only_json: bool) -> serde_json::Result<()> {
        if !only_json {
            println!("{}", self.table());
        }
        for figure in &self.figures {
            println!("{}", serde_json::to_string(figure)?);
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["bench", "metric", "p50", "p99", "unit", "n", "ratio", "to", "reach", "host"]);
        for figure in &self.figures {
            let ratio =
                if figure.baseline.is_empty() { String::new() } else { format!("{:.2}x", figure.ratio) };
            table.add_row([
                figure.bench,
                &figure.metric,
                &format!("{:.1}", figure.p50),
                &format!("{:.1}", figure.p99),
                figure.unit,
                &figure.n.to_string(),
                &ratio,
                &figure.baseline,
                figure.reach,
                figure.host,
            ]);
        }
        table
    }
}
