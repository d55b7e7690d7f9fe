//! What a probe found, for people and for programs.

use super::templates::Offered;
use super::trial::Tried;
use serde::Serialize;
use std::fmt;

/// Everything found.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// In the order tried.
    pub findings: Vec<Finding>,
    /// Every processor template of Linux guests, with what this host lacks for it.
    pub templates: Vec<Offered>,
    /// Whether Wasm sandboxes can run.
    pub wasm: Verdict,
    /// Whether Linux guests can run.
    pub linux: Verdict,
}

/// One thing tried.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// Whether it works.
    pub works: bool,
    /// How, or why not.
    pub detail: String,
}

/// A conclusion with its reason.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Yes or no.
    pub can: bool,
    /// Because.
    pub because: String,
}

impl Verdict {
    pub(super) fn yes(because: &str) -> Self {
        Self { can: true, because: because.into() }
    }

    pub(super) fn no(because: &str) -> Self {
        Self { can: false, because: because.into() }
    }
}

impl Default for Probe {
    fn default() -> Self {
        let verdict = Verdict::no("there is no usable /dev/kvm");
        Self { findings: Vec::new(), templates: Vec::new(), wasm: verdict.clone(), linux: verdict }
    }
}

impl Probe {
    pub(super) fn add(&mut self, name: &'static str, works: bool, detail: impl Into<String>) {
        self.findings.push(Finding { name, works, detail: detail.into() });
    }

    pub(super) fn add_result<T>(
        &mut self,
        name: &'static str,
        tried: &Tried<T>,
        show: impl Fn(&T) -> String,
    ) {
        match tried {
            Ok(value) => self.add(name, true, show(value)),
            Err(why) => self.add(name, false, why),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = if finding.works { "yes" } else { "no " };
            writeln!(f, "{mark}  {:24} {}", finding.name, finding.detail)?;
        }
        for template in &self.templates {
            writeln!(f, "{template}")?;
        }
        let can = |verdict: &Verdict| if verdict.can { "can" } else { "cannot" };
        writeln!(f)?;
        writeln!(f, "This host {} run Wasm sandboxes, because {}.", can(&self.wasm), self.wasm.because)?;
        writeln!(f, "This host {} run Linux guests, because {}.", can(&self.linux), self.linux.because)
    }
}
