//! Log files: JSON lines, two bounded files a function.
//!
//! Each line: `t` microseconds since the epoch, `n` its number, `r` the request, `s` the sandbox, `x` the text.
//! `DATA/logs/<function>.jsonl` is written; at [`FILE_BYTES`] it becomes `<function>.jsonl.1`, replacing the last one.

use super::hub::Line;
use crate::garbage::{Removed, sweep};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// Size at which a file is turned over.
const FILE_BYTES: u64 = 8 << 20;
/// Files held open.
const MAX_OPEN: usize = 64;
/// Most bytes read back for a tail, per function.
const TAIL_BYTES: u64 = 1 << 20;
/// Most lines a tail gives.
const MAX_TAIL: usize = 10_000;

/// A line as it lies in a file; short names, for there are many.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    t: u64,
    n: u64,
    r: &'a str,
    s: &'a str,
    #[serde(borrow)]
    x: std::borrow::Cow<'a, str>,
}

#[derive(Debug)]
struct Open {
    file: BufWriter<File>,
    bytes: u64,
    used: u64,
}

/// The files of one worker.
#[derive(Debug)]
pub(super) struct LogFiles {
    dir: PathBuf,
    open: HashMap<String, Open>,
    clock: u64,
}

impl LogFiles {
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, open: HashMap::new(), clock: 0 })
    }

    /// Writes lines; a failing disk costs the lines, never the worker.
    pub(super) fn append(&mut self, lines: &[Line]) {
        for line in lines {
            if let Err(error) = self.append_one(line) {
                tracing::warn!(function = %line.function, %error, "a log line was not written");
                self.open.remove(&*line.function);
            }
        }
    }

    pub(super) fn flush(&mut self) {
        self.open.retain(|function, open| match open.file.flush() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%function, %error, "log lines were not written");
                false
            }
        });
    }

    /// The last lines of a function, or of all.
    pub(super) fn tail(&self, function: &str, lines: usize) -> Vec<Line> {
        let lines = lines.min(MAX_TAIL);
        let functions = if function.is_empty() { self.functions() } else { vec![function.to_owned()] };
        let mut found: Vec<Line> =
            functions.iter().flat_map(|function| self.tail_of(function, lines)).collect();
        found.sort_by_key(|line| line.sequence);
        found.split_off(found.len().saturating_sub(lines))
    }

    /// Removes the files of all other functions, once they are so old.
    pub(super) fn retain(&mut self, functions: &HashSet<String>, min_age: Duration) -> Removed {
        let names = functions.iter().map(|function| self.path(function));
        let keep = names.flat_map(|path| [older(&path), path]);
        let keep: HashSet<OsString> =
            keep.filter_map(|path| path.file_name().map(std::ffi::OsStr::to_owned)).collect();
        self.open.retain(|function, _| functions.contains(function));
        sweep(&self.dir, |name| keep.contains(name), min_age).unwrap_or_else(|error| {
            tracing::warn!(%error, "old logs stay");
            Removed::default()
        })
    }

    fn append_one(&mut self, line: &Line) -> io::Result<()> {
        self.clock += 1;
        let clock = self.clock;
        if !self.open.contains_key(&*line.function) {
            self.make_room();
            let path = self.path(&line.function);
            let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
            let bytes = file.metadata()?.len();
            self.open
                .insert(line.function.to_string(), Open { file: BufWriter::new(file), bytes, used: clock });
        }
        let Some(open) = self.open.get_mut(&*line.function) else { return Ok(()) };
        let stored = Stored {
            t: line.unix_us,
            n: line.sequence,
            r: &line.request_id,
            s: &line.sandbox_id,
            x: line.text.as_str().into(),
        };
        let mut text = serde_json::to_vec(&stored)?;
        text.push(b'\n');
        open.file.write_all(&text)?;
        open.bytes += text.len() as u64;
        open.used = clock;
        if open.bytes >= FILE_BYTES {
            open.file.flush()?;
            self.open.remove(&*line.function);
            let path = self.path(&line.function);
            fs::rename(&path, older(&path))?;
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.open.len() < MAX_OPEN {
            return;
        }
        if let Some(oldest) = self.open.iter().min_by_key(|(_, open)| open.used).map(|(name, _)| name.clone())
        {
            self.open.remove(&oldest);
        }
    }

    fn tail_of(&self, function: &str, lines: usize) -> Vec<Line> {
        let path = self.path(function);
        let mut found = read_end(&older(&path), function);
        found.append(&mut read_end(&path, function));
        found.split_off(found.len().saturating_sub(lines))
    }

    fn functions(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter_map(|name| Some(name.strip_suffix(".jsonl")?.to_owned())).collect()
    }

    fn path(&self, function: &str) -> PathBuf {
        self.dir.join(format!("{function}.jsonl"))
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// The whole lines at the end of a file; a damaged line is skipped.
fn read_end(path: &Path, function: &str) -> Vec<Line> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let Ok(bytes) = read() else { return Vec::new() };
    let function: std::sync::Arc<str> = function.into();
    let stored =
        bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Stored<'_>>(line).ok());
    let line = |stored: Stored<'_>| Line {
        unix_us: stored.t,
        sequence: stored.n,
        function: std::sync::Arc::clone(&function),
        request_id: stored.r.into(),
        sandbox_id: stored.s.into(),
        text: stored.x.into_owned(),
    };
    stored.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(function: &str, sequence: u64, text: &str) -> Line {
        let text = text.to_owned();
        let of = |text: &str| -> std::sync::Arc<str> { text.into() };
        Line { unix_us: 1, sequence, function: of(function), request_id: of("r"), sandbox_id: of("s"), text }
    }

    #[test]
    fn what_was_written_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(dir.path().to_owned()).unwrap();
        let lines = [line("a", 1, "one \"quoted\" ä"), line("b", 2, "two"), line("a", 3, "three")];
        files.append(&lines);
        files.flush();
        assert_eq!(files.tail("a", 10), [lines[0].clone(), lines[2].clone()]);
        assert_eq!(files.tail("", 2), [lines[1].clone(), lines[2].clone()]);
        assert_eq!(files.tail("nobody", 2), []);
        let mut reopened = LogFiles::open(dir.path().to_owned()).unwrap();
        reopened.append(&[line("a", 4, "after a restart")]);
        reopened.flush();
        assert_eq!(reopened.tail("a", 1)[0].text, "after a restart");
    }

    #[test]
    fn files_are_turned_over_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(dir.path().to_owned()).unwrap();
        let text = "x".repeat(8000);
        for number in 0..4000 {
            files.append(&[line("a", number, &text)]);
        }
        files.flush();
        let sizes: Vec<u64> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size < FILE_BYTES + 10_000), "{sizes:?}");
        let tail = files.tail("a", 50);
        assert_eq!(
            tail.iter().map(|line| line.sequence).collect::<Vec<_>>(),
            (3950..4000).collect::<Vec<_>>()
        );
    }

    #[test]
    fn logs_of_functions_that_are_gone_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(dir.path().to_owned()).unwrap();
        files.append(&[line("stays", 1, "x"), line("goes", 2, "x")]);
        files.flush();
        let only = HashSet::from(["stays".to_owned()]);
        assert_eq!(files.retain(&only, Duration::from_hours(1)), Removed::default());
        assert_eq!(files.retain(&only, Duration::ZERO).files, 1);
        assert_eq!(files.tail("", 10).len(), 1);
        // A late line of the one that went makes a file anew.
        files.append(&[line("goes", 3, "late"), line("stays", 4, "y")]);
        files.flush();
        assert_eq!(files.tail("", 10).len(), 3);
    }

    #[test]
    fn many_functions_few_open_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::open(dir.path().to_owned()).unwrap();
        for number in 0..200 {
            files.append(&[line(&format!("f{number}"), number, "x")]);
            assert!(files.open.len() <= MAX_OPEN);
        }
        files.flush();
        assert_eq!(files.tail("", 1000).len(), 200);
    }
}
