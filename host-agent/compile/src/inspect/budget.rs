//! How much of everything a module has used up, and what was seen on the way.

use super::{Kind, shorten};
use crate::limits;
use std::collections::{BTreeMap, BTreeSet};
use warren_artefact::{CompileError, MemoryDemand};

/// Bytes of a Wasm page.
const WASM_PAGE: u64 = 65_536;

/// Names of the outermost component.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outer {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Counts over the whole input, nested modules and components included.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: BTreeMap<&'static str, u64>,
    /// One entry for each binary we are in, the outermost first.
    nesting: Vec<Kind>,
    outermost: Option<Kind>,
    outer: Outer,
    core_imports: BTreeSet<String>,
    initial_bytes: u64,
    max_bytes: Option<u64>,
    memories: u64,
}

impl Budget {
    /// Adds `count` of `what`; an error once the total is over `limit`.
    pub(super) fn spend(&mut self, what: &'static str, count: u64, limit: u64) -> Result<(), CompileError> {
        let total = self.spent.entry(what).or_default();
        *total = total.saturating_add(count);
        within(what, *total, limit)
    }

    pub(super) fn enter(&mut self, kind: Kind) -> Result<(), CompileError> {
        self.outermost.get_or_insert(kind);
        self.nesting.push(kind);
        match kind {
            Kind::Module => self.spend("core modules", 1, limits::CORE_MODULES),
            Kind::Component => {
                self.spend("components", 1, limits::COMPONENTS)?;
                within(
                    "levels of components in components",
                    self.nesting.len() as u64,
                    limits::COMPONENT_DEPTH,
                )
            }
        }
    }

    pub(super) fn leave(&mut self) {
        self.nesting.pop();
    }

    /// The outermost component's own list of imports or exports is being read.
    pub(super) fn outer_mut(&mut self) -> Option<&mut Outer> {
        (self.nesting == [Kind::Component]).then_some(&mut self.outer)
    }

    /// Notes what the outermost core module imports.
    pub(super) fn core_import(&mut self, module: &str, name: &str) {
        if self.nesting == [Kind::Module] && self.core_imports.len() < limits::IMPORTS_LISTED {
            self.core_imports.insert(shorten(&format!("{module}.{name}"), limits::NAME_CHARS));
        }
    }

    /// Notes a memory's demand, in Wasm pages.
    pub(super) fn memory_demand(&mut self, initial: u64, maximum: Option<u64>) {
        let before = if self.memories == 0 { Some(0) } else { self.max_bytes };
        self.memories += 1;
        self.initial_bytes = self.initial_bytes.saturating_add(initial.saturating_mul(WASM_PAGE));
        self.max_bytes =
            before.zip(maximum).map(|(sum, pages)| sum.saturating_add(pages.saturating_mul(WASM_PAGE)));
    }

    pub(super) fn kind(&self) -> Kind {
        self.outermost.unwrap_or(Kind::Module)
    }

    pub(super) fn outer(&self) -> &Outer {
        &self.outer
    }

    pub(super) fn memory(&self) -> MemoryDemand {
        let max_bytes = if self.memories == 0 { Some(0) } else { self.max_bytes };
        MemoryDemand { initial_bytes: self.initial_bytes, max_bytes }
    }

    pub(super) fn imports(&self) -> Vec<String> {
        let outer = self.outer.imports.iter().map(|name| shorten(name, limits::NAME_CHARS));
        let all: BTreeSet<String> = self.core_imports.iter().cloned().chain(outer).collect();
        all.into_iter().take(limits::IMPORTS_LISTED).collect()
    }
}

/// An error if there is more of `what` than `limit`.
pub(super) fn within(what: &str, found: u64, limit: u64) -> Result<(), CompileError> {
    if found > limit { Err(CompileError::TooComplex { what: what.to_owned(), found, limit }) } else { Ok(()) }
}
