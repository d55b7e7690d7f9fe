//! The numbers of an invocation, and the REPORT line made of them.
//!
//! Billed time is the handler's, plus init's on the invocation that started the sandbox, rounded up to a millisecond. Bringing
//! a sandbox back from a snapshot is not billed: nothing of the function runs in it, and its line says 0 ms.

use std::fmt;
use warren_proto::v1::Report;

/// A REPORT line.
#[derive(Clone, Copy, Debug)]
pub struct ReportLine<'a>(pub &'a Report);

/// Milliseconds billed for so many microseconds of handler and init.
#[must_use]
pub const fn billed_ms(handler_us: u64, init_us: u64) -> u64 {
    let billed = handler_us.saturating_add(init_us).div_ceil(1000);
    if billed == 0 { 1 } else { billed }
}

impl fmt::Display for ReportLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        let peak_mib = report.memory_peak_bytes.div_ceil(1 << 20);
        write!(
            f,
            "REPORT RequestId: {}\tDuration: {} ms\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {peak_mib} MB",
            report.request_id,
            Millis(report.duration_us),
            report.billed_ms,
            report.memory_mib,
        )?;
        let start = [("Init", report.init_us), ("Restore", report.restore_us)];
        start
            .into_iter()
            .filter(|(_, us)| *us > 0)
            .try_for_each(|(what, us)| write!(f, "\t{what} Duration: {} ms", Millis(us)))?;
        if report.restore_us > 0 {
            f.write_str("\tBilled Restore Duration: 0 ms")?;
        }
        Ok(())
    }
}

/// Microseconds shown as milliseconds with two decimals.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_table() {
        for (handler, init, ms) in [(0, 0, 1), (1, 0, 1), (1000, 0, 1), (1001, 0, 2), (1001, 2000, 4)] {
            assert_eq!(billed_ms(handler, init), ms, "{handler} {init}");
        }
        assert_eq!(billed_ms(u64::MAX, 1), u64::MAX.div_ceil(1000));
    }

    #[test]
    fn lines_as_lambda_writes_them() {
        let mut report = Report {
            request_id: "r1".into(),
            duration_us: 1_239,
            billed_ms: 2,
            memory_mib: 128,
            memory_peak_bytes: 35 << 20,
            init_us: 0,
            restore_us: 0,
        };
        let warm = "REPORT RequestId: r1\tDuration: 1.23 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\tMax Memory Used: 35 MB";
        assert_eq!(ReportLine(&report).to_string(), warm);
        report.init_us = 12_005;
        assert_eq!(ReportLine(&report).to_string(), format!("{warm}\tInit Duration: 12.00 ms"));
        (report.init_us, report.restore_us) = (0, 510);
        assert_eq!(
            ReportLine(&report).to_string(),
            format!("{warm}\tRestore Duration: 0.51 ms\tBilled Restore Duration: 0 ms")
        );
    }
}
