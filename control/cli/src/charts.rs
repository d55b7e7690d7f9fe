//! Bar charts in plain characters.

use crate::screen;
use hdrhistogram::Histogram;
use warren_proto::v1::Timing;

const WIDTH: u64 = 40;
/// Bars are drawn in eighths of a character.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// A horizontal bar: `part` of `whole` over [`WIDTH`] characters; what is not nothing is never invisible.
fn bar(part: u64, whole: u64) -> String {
    if part == 0 || whole == 0 {
        return String::new();
    }
    let cells = u128::from(part) * u128::from(WIDTH) * 8 / u128::from(whole);
    let cells = usize::try_from(cells).unwrap_or(usize::MAX).clamp(1, 8 * 40);
    format!("{}{}", "█".repeat(cells / 8), EIGHTHS.get(cells % 8).copied().unwrap_or_default())
}

/// The phases of an invocation in the order they happen; `other` is what no phase covers.
pub(crate) fn phases(timing: &Timing) -> [(&'static str, u64); 9] {
    let known = [
        timing.admission_us,
        timing.assignment_us,
        timing.placement_us,
        timing.jail_us,
        timing.vm_us,
        timing.init_us,
        timing.restore_us,
        timing.handler_us,
    ];
    let [admission, assignment, placement, jail, vm, init, restore, handler] = known;
    [
        ("admission", admission),
        ("assignment", assignment),
        ("placement", placement),
        ("jail", jail),
        ("vm", vm),
        ("init", init),
        ("restore", restore),
        ("handler", handler),
        ("forwarding", timing.total_us.saturating_sub(known.iter().sum())),
    ]
}

/// Where the time of one invocation went.
pub(crate) fn timing(title: &str, timing: &Timing) -> String {
    let phases = phases(timing);
    let whole = phases.iter().map(|phase| phase.1).max().unwrap_or(0);
    let mut lines = vec![format!("{title}: {}\n", screen::micros(timing.total_us))];
    for (name, us) in phases.into_iter().filter(|phase| phase.1 > 0) {
        lines.push(format!("  {name:<11}{:>9}  {}\n", screen::micros(us), bar(us, whole)));
    }
    lines.concat()
}

/// Percentiles and the shape of a latency distribution, microseconds.
pub(crate) fn latencies(histogram: &Histogram<u64>) -> String {
    let mut lines = Vec::new();
    for (name, quantile) in
        [("min", 0.0), ("p50", 0.50), ("p90", 0.90), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)]
    {
        lines.push(format!("  {name:<6}{:>10}\n", screen::micros(histogram.value_at_quantile(quantile))));
    }
    let steps: Vec<(u64, u64)> = histogram
        .iter_log((histogram.min() / 2).max(1), 1.6)
        .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
        .filter(|step| step.1 > 0)
        .collect();
    let whole = steps.iter().map(|step| step.1).max().unwrap_or(0);
    for (upto, count) in steps {
        lines.push(format!("  <= {:>9}  {count:>7}  {}\n", screen::micros(upto), bar(count, whole)));
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars() {
        for (part, whole, length) in [(0, 10, 0), (10, 10, 40), (5, 10, 20), (1, 1_000_000, 1)] {
            assert_eq!(bar(part, whole).chars().count(), length, "{part}/{whole}");
        }
    }

    #[test]
    fn phases_sum_up_to_the_total() {
        let timing = Timing { admission_us: 5, handler_us: 70, total_us: 100, ..Timing::default() };
        assert_eq!(phases(&timing).iter().map(|phase| phase.1).sum::<u64>(), 100);
    }

    #[test]
    fn an_empty_and_a_full_histogram_print() {
        let mut histogram = Histogram::new(3).unwrap();
        assert!(latencies(&histogram).contains("p99"));
        for value in [100, 200, 100_000] {
            histogram.record(value).unwrap();
        }
        assert!(latencies(&histogram).lines().count() >= 9);
    }
}
