//! What VMs of a bench are made from: the guest program, a compiled function, what it is told, its files.

use crate::{
    Places,
    floors::kvm::{load_spec, memfd},
};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsRawFd as _, OwnedFd};
use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};
use warren_vmm::machine::Artefacts;
use warren_vmm_protocol::{LoadSpec, World};

/// What every VM of a bench is made from.
pub(crate) struct Parts {
    pub(super) guest: File,
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
        let guest = File::open(places.bin.join("warren-guest"))?;
        let (code_len, code) = (code.len() as u64, memfd("code", &code)?);
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
        memfd("code", &fs::read(format!("/proc/self/fd/{}", self.code.as_raw_fd()))?)
    }
}
