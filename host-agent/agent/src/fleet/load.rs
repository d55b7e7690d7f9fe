//! How busy the host's processors are, from `/proc/stat`, between one look and the next.

/// The last look: busy and all ticks since the machine began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    busy: u64,
    all: u64,
}

impl Load {
    /// Thousandths since the last look; 0 if nothing can be told.
    pub(super) fn look(&mut self) -> u32 {
        let now = std::fs::read_to_string("/proc/stat").ok().and_then(|text| parse(&text));
        now.map_or(0, |now| std::mem::replace(self, now).until(now))
    }

    fn until(self, now: Self) -> u32 {
        let (busy, all) = (now.busy.saturating_sub(self.busy), now.all.saturating_sub(self.all));
        let share = busy.saturating_mul(1000).checked_div(all).unwrap_or(0);
        u32::try_from(share.min(1000)).unwrap_or(1000)
    }
}

/// The first line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in them.
fn parse(text: &str) -> Option<Load> {
    let mut words = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut ticks = [0_u64; 8];
    for tick in &mut ticks {
        *tick = words.next()?.parse().ok()?;
    }
    let all = ticks.iter().sum();
    let [.., idle, iowait, _irq, _softirq, _steal] = ticks;
    Some(Load { busy: all - idle - iowait, all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let of = |line: &str| parse(line).unwrap();
        let first = of("cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1");
        assert_eq!(first, Load { busy: 20, all: 100 });
        assert_eq!(first.until(of("cpu  60 0 10 110 20 0 0 0 0 0")), 500);
        assert_eq!(first.until(first), 0);
        assert_eq!(of("cpu  60 0 0 0 0 0 0 0").until(of("cpu  70 0 0 0 0 0 0 0")), 1000);
        for bad in ["", "cpu", "cpu  1 2 3", "cpu  a 0 0 0 0 0 0 0", "intr 1 2 3 4 5 6 7 8"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
