//! What the terminal can do, tables and progress.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

/// Whether standard error may have colour.
fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal()
}

/// Bold red, on a terminal.
pub(crate) fn red(text: &str) -> String {
    if colour() { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
}

/// Bold, on a terminal.
pub(crate) fn bold(text: &str) -> String {
    if colour() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// A table as everything here prints them; the columns at `right` are numbers.
pub(crate) fn table(header: &[&str], right: &[usize], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().map(|name| name.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    for index in 0..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if right.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table.trim_fmt()
}

/// Prints to standard output and treats a closed pipe (`warren ps | head`) as the end.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let whole = out
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') || text.is_empty() { Ok(()) } else { out.write_all(b"\n") });
    if whole.and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Tells the person at the terminal. Where nobody can be told (a full disk below `2> file`) the work goes on.
pub(crate) fn tell(text: &str) {
    let mut line = text.to_owned();
    line.push('\n');
    let _nobody = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Prints a value as one JSON document.
pub(crate) fn print_json(value: &serde_json::Value) {
    print(&format!("{value:#}"));
}

/// A spinner that shows itself when the work takes over a moment, and vanishes after.
pub(crate) fn spinner(message: impl Into<String>) -> Progress {
    let bar = ProgressBar::with_draw_target(None, target());
    bar.set_style(ProgressStyle::default_spinner());
    bar.set_message(message.into());
    bar.enable_steady_tick(Duration::from_millis(120));
    Progress(bar)
}

/// A bar over a known amount of work.
pub(crate) fn bar(length: u64, message: impl Into<String>) -> Progress {
    let bar = ProgressBar::with_draw_target(Some(length), target());
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar.set_message(message.into());
    Progress(bar)
}

/// Progress that is gone from the screen once dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// What it is at now.
    pub(crate) fn say(&self, message: String) {
        self.0.set_message(message);
    }

    /// One more done.
    pub(crate) fn inc(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

/// `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in UNITS {
        if count >= size {
            let tenths = count.saturating_mul(10) / size;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// `850 us`, `12.3 ms`, `4.56 s`.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
    }
}

/// `3 s`, `12 m`, `5 h`, `3 d`.
pub(crate) fn age(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} m", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (count, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (6 << 20, "6.0 MiB")] {
            assert_eq!(bytes(count), text);
        }
        for (us, text) in [(7, "7 us"), (1_250, "1.2 ms"), (4_560_000, "4.56 s")] {
            assert_eq!(micros(us), text);
        }
        for (ms, text) in [(5_000, "5 s"), (180_000, "3 m"), (7_200_000, "2 h"), (172_800_000, "2 d")] {
            assert_eq!(age(ms), text);
        }
    }

    #[test]
    fn numbers_stand_right() {
        let text =
            table(&["name", "n"], &[1], vec![vec!["a".into(), "5".into()], vec!["b".into(), "100".into()]]);
        let lines: Vec<_> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["NAME    N", "a       5", "b     100"]);
    }
}
