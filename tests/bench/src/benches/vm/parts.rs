//! What VMs of a bench are made from: the guest program, a compiled function, what it is told, its files.

use crate::{
    Places,
    floors::kvm::{load_spec, memfd},
};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsRawFd as _, OwnedFd};
use std::{fs, num::NonZeroUsize, path::Path, process::Command};
use warren_large_pages::{LARGE_PAGE, gather};
use warren_vmm::machine::Artefacts;
use warren_vmm_protocol::{LoadSpec, World};

/// What guests map and none writes, in large pages, as jailer and agent have it.
fn shared(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let file = memfd(name, bytes)?;
    let len = bytes.len().next_multiple_of(LARGE_PAGE);
    rustix::fs::ftruncate(&file, len as u64)?;
    if let Err(why) = gather(&file, 0, NonZeroUsize::new(len).context("an empty file")?) {
        eprintln!("the {name} is in small pages: {why}");
    }
    Ok(file)
}

/// What every VM of a bench is made from.
pub(crate) struct Parts {
    pub(super) guest: OwnedFd,
    world: World,
    code: OwnedFd,
    code_len: u64,
    args: Vec<String>,
    /// The function's files, and their bytes.
    task: Option<(OwnedFd, u64)>,
}

impl Parts {
    /// Of one of the tests' functions.
    pub(crate) fn compile(places: &Places, function: &str, world: World) -> Result<Self> {
        Self::compile_file(places, &places.functions.join(function).with_extension("wasm"), world)
    }

    /// Of a module that lies nowhere.
    pub(crate) fn compile_bytes(places: &Places, module: &[u8], world: World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("function.wasm");
        fs::write(&file, module)?;
        Self::compile_file(places, &file, world)
    }

    fn compile_file(places: &Places, module: &Path, world: World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("function.cwasm");
        let status = Command::new(places.bin.join("warren-compile"))
            .arg("file")
            .arg(module)
            .arg("-o")
            .arg(&out)
            .args(["--purpose", "function", "--isa", "host"])
            .status()
            .context("warren-compile: run `cargo xtask build`")?;
        ensure!(status.success(), "warren-compile ended with {status}");
        let code = fs::read(&out)?;
        let guest = shared("guest", &fs::read(places.bin.join("warren-guest"))?)?;
        let (code_len, code) = (code.len() as u64, shared("code", &code)?);
        Ok(Self { guest, world, code_len, code, args: vec!["bench".to_owned()], task: None })
    }

    /// The same code with other arguments and files.
    pub(crate) fn told(&self, args: &[&str], task: Option<&[u8]>) -> Result<Self> {
        let task = task.map(|task| anyhow::Ok((memfd("task", task)?, task.len() as u64))).transpose()?;
        let (guest, code) = (self.guest.try_clone()?, self.code.try_clone()?);
        let args = args.iter().map(ToString::to_string).collect();
        Ok(Self { guest, code, args, task, ..*self })
    }

    pub(super) fn spec(&self) -> LoadSpec {
        let mut spec = load_spec(self.code_len, self.world);
        spec.function.args.clone_from(&self.args);
        spec.task_len = self.task.as_ref().map_or(0, |task| task.1);
        spec
    }

    pub(super) fn artefacts(&self) -> Result<Artefacts> {
        let task = self.task.as_ref().map(|task| task.0.try_clone()).transpose()?;
        Ok(Artefacts { code: self.code.try_clone()?, task })
    }

    /// Its code in a file that nobody maps.
    pub(super) fn copy_of_code(&self) -> Result<OwnedFd> {
        shared("code", &fs::read(format!("/proc/self/fd/{}", self.code.as_raw_fd()))?)
    }
}
