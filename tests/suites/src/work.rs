//! Eight functions that have nothing in common, with events of which no two are alike and the one right answer to each.

use crate::{Deploy, function, root, sample};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

/// One of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// A greeting.
    Hello,
    /// A number.
    Fib,
    /// HTML of Markdown.
    Markdown,
    /// A PNG of a PNG.
    Thumbnail,
    /// A program that never heard of Warren.
    Jq,
    /// A component, which lives from event to event and would notice another event at once.
    Component,
    /// A program that looks whether it is alone in its sandbox.
    Probe,
    /// Answers of every size.
    Sizes,
}

/// All eight.
pub const ALL: [Work; 8] = [
    Work::Hello,
    Work::Fib,
    Work::Markdown,
    Work::Thumbnail,
    Work::Jq,
    Work::Component,
    Work::Probe,
    Work::Sizes,
];

/// Turns of the probe between two looks.
const STEPS: u32 = 2_000;
const LOOKS: u32 = 8;

/// What an answer may tell beyond being right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    Nothing,
    /// How many events its sandbox has seen, this one included.
    Seen(u64),
}

impl Work {
    /// The module's file name.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Fib => "fib",
            Self::Markdown => "markdown",
            Self::Thumbnail => "thumbnail",
            Self::Jq => "jq",
            Self::Component => "hello-component",
            Self::Probe => "probe",
            Self::Sizes => "hostile",
        }
    }

    /// The module.
    pub fn code(self) -> Result<Bytes> {
        function(self.module())
    }

    /// How it is deployed. Timeouts are long: a slow machine is no wrong answer.
    #[must_use]
    pub fn deploy(self) -> Deploy {
        let args = match self {
            Self::Jq => vec!["-c".to_owned(), "{who: .who, sum: (.numbers | add)}".to_owned()],
            _ => Vec::new(),
        };
        Deploy { timeout_ms: 60_000, args, ..Deploy::default() }
    }

    /// The event of that number.
    pub fn event(self, number: u64) -> Result<Bytes> {
        let text = match self {
            Self::Hello => json!({ "name": format!("n{number}") }).to_string(),
            Self::Fib => json!({ "n": 5 + number % 17 }).to_string(),
            Self::Markdown => format!("# Number {number}\n\n*one* `two`"),
            Self::Thumbnail => return sample("photo.png"),
            Self::Jq => json!({ "who": format!("n{number}"), "numbers": [number, 1, 2] }).to_string(),
            Self::Component => format!("linger n{number}"),
            Self::Probe => json!({ "nonce": format!("n{number}"), "steps": STEPS }).to_string(),
            Self::Sizes => json!({ "mode": "answer", "bytes": size(number) }).to_string(),
        };
        Ok(text.into())
    }

    /// Whether this is the answer to the event of that number.
    pub fn check(self, number: u64, answer: &[u8]) -> Result<Told> {
        let parsed = || serde_json::from_slice::<Value>(answer).context("no JSON");
        match self {
            Self::Hello => same(answer, &format!(r#"{{"message":"Hello, n{number}!"}}"#))?,
            Self::Fib => {
                let n = 5 + number % 17;
                same(answer, &format!(r#"{{"n":{n},"fib":{}}}"#, fib(n)))?;
            }
            Self::Markdown => {
                let expected = format!("<h1>Number {number}</h1>\n<p><em>one</em> <code>two</code></p>\n");
                same(answer, &expected)?;
            }
            Self::Thumbnail => {
                let golden = root().join("tests/functions/data/expected/photo.png.128.png");
                ensure!(answer == std::fs::read(golden)?, "not the thumbnail it should be");
            }
            Self::Jq => same(answer, &format!("{{\"who\":\"n{number}\",\"sum\":{}}}\n", number + 3))?,
            Self::Component => {
                let told = parsed()?;
                ensure!(told["message"] == format!("Hello, n{number}!"), "{told}");
                return Ok(Told::Seen(told["seen"].as_u64().context("seen")?));
            }
            Self::Probe => {
                let told = parsed()?;
                let nonce = format!("n{number}");
                ensure!(told["nonce"] == *nonce && told["sum"] == probed(&nonce), "{told}");
                return Ok(Told::Seen(told["runs"].as_u64().context("runs")?));
            }
            Self::Sizes => {
                ensure!(answer.len() == size(number), "{} bytes", answer.len());
                ensure!(parsed()?.is_string(), "no string");
            }
        }
        Ok(Told::Nothing)
    }
}

fn same(answer: &[u8], expected: &str) -> Result<()> {
    ensure!(answer == expected.as_bytes(), "{expected} expected, got {}", String::from_utf8_lossy(answer));
    Ok(())
}

/// Bytes of an answer: mostly small, now and then more than any buffer on the way holds.
fn size(number: u64) -> usize {
    let bytes = if number.is_multiple_of(61) { 300_000 + number % 1_000 } else { 2 + number * 7 % 5_000 };
    usize::try_from(bytes).unwrap_or(2)
}

fn fib(n: u64) -> u64 {
    (0..n).fold((0, 1), |(a, b), _| (b, a + b)).0
}

/// The probe's sum, by the same recipe (FNV-1a over and over).
fn probed(nonce: &str) -> u64 {
    let turns = STEPS * LOOKS;
    (0..turns).fold(0xcbf2_9ce4_8422_2325, |sum, _| {
        nonce.bytes().fold(sum, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    })
}
