//! What this machine's KVM can do, asked once for the agent: it may not open the device itself.

use super::programs::Programs;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{process::Command, time::timeout};
use warren_client::{Failure, Outcome};

/// The probe runs guests of twenty bytes; where even these hang, there is no KVM worth the name.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it said.
pub(crate) struct Probe {
    /// Where it is kept.
    pub(crate) file: PathBuf,
    /// Whether the machine runs Linux guests.
    pub(crate) linux: bool,
    templates: Vec<Template>,
}

/// A processor template of Linux guests.
pub(crate) struct Template {
    /// Its name.
    pub(crate) name: String,
    /// What this machine lacks for it, if it does.
    pub(crate) lacks: Option<String>,
}

impl Template {
    /// Those that an answer of the probe names.
    pub(crate) fn all(said: &serde_json::Value) -> Vec<Self> {
        let all = said["templates"].as_array().map(Vec::as_slice).unwrap_or_default();
        let one = |one: &serde_json::Value| {
            let lacks = one["lacks"].as_str().map(str::to_owned);
            Some(Self { name: one["name"].as_str()?.to_owned(), lacks })
        };
        all.iter().filter_map(one).collect()
    }
}

impl Probe {
    /// Refuses a template that there is not, or that this machine cannot be: who starts it is here to choose another. (An agent that
    /// is started without anybody at it goes on without Linux functions.)
    pub(crate) fn check(&self, template: &str) -> Outcome {
        let names: Vec<_> = self.templates.iter().map(|one| one.name.as_str()).collect();
        match self.templates.iter().find(|one| one.name == template) {
            _ if self.templates.is_empty() => Ok(()),
            Some(Template { lacks: None, .. }) => Ok(()),
            Some(Template { lacks: Some(lacks), .. }) => {
                Err(Failure::Usage(format!("this machine's processor cannot be {template}: {lacks}")))
            }
            None => Err(Failure::Usage(format!(
                "there is no processor template {template:?}; there are {}",
                names.join(", ")
            ))),
        }
    }
}

/// Asks `warren-vmm probe` and keeps its answer in `file`; gives that, or nothing if there is no answer. The agent then says
/// so, and offers Wasm functions only.
pub(crate) async fn ask(programs: &Programs, file: &Path) -> Option<Probe> {
    let mut probe = Command::new(programs.path("warren-vmm"));
    probe.args(["probe", "--json"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let done = timeout(PATIENCE, probe.output()).await.ok()?.ok()?;
    std::fs::write(file, &done.stdout).ok()?;
    let said: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    // The agent has a user of its own.
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o644)).ok()?;
    let templates = Template::all(&said);
    Some(Probe { file: file.to_owned(), linux: said["linux"]["can"] == true, templates })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_cannot_be_is_refused_by_name() {
        let said = serde_json::json!({ "templates": [
            { "name": "host", "seen": "00", "lacks": null },
            { "name": "amd-zen", "seen": null, "lacks": "leaf 0x1.0 Edx: virtual 8086 mode" },
        ] });
        let probe = |templates| Probe { file: PathBuf::new(), linux: true, templates };
        let here = probe(Template::all(&said));
        assert!(here.check("host").is_ok());
        for (template, words) in [
            ("amd-zen", "this machine's processor cannot be amd-zen: leaf 0x1.0 Edx: virtual 8086 mode"),
            ("amd-zon", "there is no processor template \"amd-zon\"; there are host, amd-zen"),
        ] {
            let refused = here.check(template).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        // Where KVM cannot be asked, the agent says that there are no Linux functions, and why.
        assert!(probe(Template::all(&serde_json::Value::Null)).check("whatever").is_ok());
    }
}
