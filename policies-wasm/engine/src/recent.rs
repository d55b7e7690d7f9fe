//! The last decisions, kept to be explained: a ring of fixed size whose entries are written in place, so that
//! remembering a decision allocates nothing once the ring has gone round.

use crate::decided::{About, By, Decided};
use std::collections::VecDeque;

/// Decisions remembered.
const ENTRIES: usize = 256;
/// Candidates remembered of each.
pub(crate) const CANDIDATES: usize = 8;
/// Bytes kept of a function's name or a request's id.
const NAME_BYTES: usize = 96;

/// What is remembered of a candidate.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Note {
    pub(crate) id: u32,
    pub(crate) score: i64,
    pub(crate) chosen: bool,
    /// Whatever else the interface remembers; it alone can read it.
    pub(crate) facts: [u32; 3],
}

/// One remembered decision; `O` is what the interface remembers of the answer.
#[derive(Debug)]
pub(crate) struct Entry<O> {
    pub(crate) unix_ms: u64,
    pub(crate) function: String,
    pub(crate) request: String,
    pub(crate) by: By,
    pub(crate) took_ns: u64,
    pub(crate) fuel: u64,
    pub(crate) outcome: O,
    pub(crate) notes: [Note; CANDIDATES],
    pub(crate) noted: usize,
    pub(crate) candidates: usize,
}

/// The ring.
#[derive(Debug)]
pub(crate) struct Recent<O> {
    entries: VecDeque<Entry<O>>,
}

impl<O> Default for Recent<O> {
    fn default() -> Self {
        Self { entries: VecDeque::with_capacity(ENTRIES) }
    }
}

impl<O> Recent<O> {
    /// Remembers a decision and returns its entry to note the candidates in.
    pub(crate) fn push<T>(
        &mut self,
        about: &About<'_>,
        unix_ms: u64,
        decided: &Decided<T>,
        outcome: O,
    ) -> Option<&mut Entry<O>> {
        let reused = if self.entries.len() < ENTRIES { None } else { self.entries.pop_front() };
        let (mut function, mut request) =
            reused.map(|entry| (entry.function, entry.request)).unwrap_or_default();
        copy_cut(&mut function, about.function);
        copy_cut(&mut request, about.request);
        self.entries.push_back(Entry {
            unix_ms,
            function,
            request,
            by: decided.by,
            took_ns: decided.took_ns,
            fuel: decided.fuel,
            outcome,
            notes: [Note::default(); CANDIDATES],
            noted: 0,
            candidates: 0,
        });
        self.entries.back_mut()
    }

    /// Newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Entry<O>> {
        self.entries.iter().rev()
    }
}

impl<O> Entry<O> {
    /// Notes a candidate; past the room there is, only a chosen one, in place of the last.
    pub(crate) fn note(&mut self, note: Note) {
        self.candidates += 1;
        let at = if self.noted < CANDIDATES {
            self.noted += 1;
            self.noted - 1
        } else if note.chosen {
            CANDIDATES - 1
        } else {
            return;
        };
        if let Some(place) = self.notes.get_mut(at) {
            *place = note;
        }
    }

    pub(crate) fn notes(&self) -> &[Note] {
        self.notes.get(..self.noted).unwrap_or(&[])
    }
}

fn copy_cut(into: &mut String, text: &str) {
    into.clear();
    let mut end = text.len().min(NAME_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    into.push_str(text.get(..end).unwrap_or(""));
}
