//! The answer of `warren-vmm probe --json`, as far as it matters here: whether this host's KVM runs Linux guests, and what they see of
//! its processor under the template that its operator chose.

use serde::Deserialize;
use std::{fs, path::Path};
use warren_artefact::{Digest, Processor};

/// A name that no template has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no processor template {name:?} (--cpu-template); there are {}", known.join(", "))]
pub struct UnknownTemplate {
    /// What was asked for.
    pub name: String,
    /// Those of this VMM.
    pub known: Vec<String>,
}

/// What it said.
#[derive(Debug, Deserialize)]
pub(super) struct Probe {
    linux: Verdict,
    /// Empty: it said nothing of them.
    #[serde(default)]
    templates: Vec<Offered>,
}

#[derive(Debug, Deserialize)]
struct Verdict {
    can: bool,
    because: String,
}

#[derive(Debug, Deserialize)]
struct Offered {
    name: String,
    seen: Option<String>,
    lacks: Option<String>,
}

/// Reads the file that it is kept in.
pub(super) fn read(path: Option<&Path>) -> Result<Probe, String> {
    let path = path.ok_or("its agent was not told what its KVM can do (--probe)")?;
    let unread = |error: &dyn std::fmt::Display| {
        format!("the probe's answer {} does not read: {error}", path.display())
    };
    let text = fs::read(path).map_err(|error| unread(&error))?;
    serde_json::from_slice(&text).map_err(|error| unread(&error))
}

impl Probe {
    /// As which processor Linux guests run here, or why none does.
    pub(super) fn verdict(self, template: &str) -> Result<Result<Processor, String>, UnknownTemplate> {
        let found = self.templates.iter().find(|one| one.name == template);
        let Some(found) = found else {
            // A KVM that cannot be opened has no templates either; any other answer without them is an earlier VMM's.
            return match (self.templates.is_empty(), self.linux.can) {
                (false, _) => Err(UnknownTemplate {
                    name: template.to_owned(),
                    known: self.templates.into_iter().map(|one| one.name).collect(),
                }),
                (true, false) => Ok(Err(self.linux.because)),
                (true, true) => {
                    Ok(Err("the probe's answer says nothing of processor templates: it is an earlier \
                                        warren-vmm's, to be asked again"
                        .to_owned()))
                }
            };
        };
        if !self.linux.can {
            return Ok(Err(self.linux.because));
        }
        let seen = found.seen.as_deref().and_then(|hex| blake3::Hash::from_hex(hex).ok());
        let lacks = found.lacks.as_deref().unwrap_or("the probe does not say what guests see");
        Ok(match seen {
            Some(seen) => Ok(Processor { template: template.to_owned(), seen: Digest(*seen.as_bytes()) }),
            None => Err(format!("its processor cannot be {template} (--cpu-template): {lacks}")),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::path::PathBuf;

    const CANNOT: &str = "a guest's kernel code is interpreted";

    fn said(can: bool) -> Value {
        json!({
            "findings": [], "wasm": { "can": true, "because": "x" },
            "linux": { "can": can, "because": CANNOT },
            "templates": [
                { "name": "host", "purpose": "x", "seen": Digest::of(b"host").to_string(), "lacks": null },
                { "name": "amd-zen", "purpose": "x", "seen": Digest::of(b"zen").to_string(), "lacks": null },
                { "name": "intel-skylake", "purpose": "x", "seen": null, "lacks": "leaf 0x0.0 Ebx: vendor" },
            ],
        })
    }

    /// A file with an answer.
    pub(in super::super) fn answer(dir: &Path, can: bool) -> PathBuf {
        let path = dir.join(format!("probe-{can}.json"));
        fs::write(&path, said(can).to_string()).unwrap();
        path
    }

    fn verdict(said: Value, template: &str) -> Result<Result<Processor, String>, UnknownTemplate> {
        serde_json::from_value::<Probe>(said).unwrap().verdict(template)
    }

    #[track_caller]
    fn none(said: Value, template: &str, because: &str) {
        let why = verdict(said, template).unwrap().unwrap_err();
        assert!(why.contains(because), "{why}");
    }

    #[test]
    fn guests_are_what_their_template_is_here() {
        for (template, seen) in [("host", b"host".as_slice()), ("amd-zen", b"zen")] {
            let expected = Processor { template: template.to_owned(), seen: Digest::of(seen) };
            assert_eq!(verdict(said(true), template), Ok(Ok(expected)));
        }
    }

    #[test]
    fn a_host_without_linux_guests_says_why() {
        none(said(true), "intel-skylake", "cannot be intel-skylake (--cpu-template): leaf 0x0.0 Ebx: vendor");
        none(said(false), "host", CANNOT);
        none(said(false), "intel-skylake", CANNOT);
        let mut earlier = said(true);
        earlier["templates"] = json!([]);
        none(earlier.clone(), "host", "earlier warren-vmm's");
        earlier["linux"]["can"] = json!(false);
        none(earlier, "whatever", CANNOT);
        let mut odd = said(true);
        odd["templates"][0]["seen"] = json!("00");
        none(odd, "host", "does not say what guests see");
    }

    #[test]
    fn a_name_that_no_template_has_is_a_mistake() {
        for can in [true, false] {
            let error = verdict(said(can), "amd-zon").unwrap_err();
            assert!(error.to_string().ends_with("there are host, amd-zen, intel-skylake"), "{error}");
        }
    }
}
