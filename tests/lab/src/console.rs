//! Reading the lab's serial console: lines for people pass through, lines that begin with `@lab` are the verdict.
//!
//! ```text
//! booting --"@lab up SECONDS"--> up --"@lab exit CODE"--> ended(CODE)
//!    \------------- console closes or time runs out ----> died
//! ```

use std::borrow::Cow;

/// What one line means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The job starts; the text is the machine's uptime.
    Up(&'a str),
    /// The job ended with this code.
    Exit(i32),
    /// Anything else.
    Text(&'a str),
}

/// Removes what firmware and kernels send to a terminal: escape sequences and control bytes other than tabs.
#[must_use]
pub fn plain(raw: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(raw);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // `ESC [ parameters letter`, or `ESC letter`.
            if rest.next() == Some('[') {
                for parameter in rest.by_ref() {
                    if parameter.is_ascii_alphabetic() {
                        break;
                    }
                }
            }
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

/// Reads one [`plain`] line.
#[must_use]
pub fn parse(line: &str) -> Line<'_> {
    if let Some(uptime) = line.strip_prefix("@lab up ") {
        return Line::Up(uptime.trim());
    }
    match line.strip_prefix("@lab exit ").map(|code| code.trim().parse()) {
        Some(Ok(code)) => Line::Exit(code),
        _ => Line::Text(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go() {
        assert_eq!(plain(b"\x1bc\x1b[?7l\x1b[2J@lab up 3.2\r\n"), "@lab up 3.2");
        assert_eq!(plain(b"a\tb\x1b["), "a\tb");
        assert_eq!(plain(b"\xff\x1b"), "\u{fffd}");
    }

    #[test]
    fn table() {
        assert_eq!(parse("@lab up 1.52"), Line::Up("1.52"));
        assert_eq!(parse("@lab exit 0"), Line::Exit(0));
        assert_eq!(parse("@lab exit 137"), Line::Exit(137));
        assert_eq!(parse("@lab exit soon"), Line::Text("@lab exit soon"));
        assert_eq!(parse("hello @lab exit 0"), Line::Text("hello @lab exit 0"));
    }
}
