//! `warren-compile file`: the same compilation without a jail.

use crate::options::FileOptions;
use anyhow::Context as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::time::Instant;
use warren_compile::{compile, limits};

pub(crate) fn run(options: &FileOptions) -> anyhow::Result<ExitCode> {
    let shown = options.module.display();
    let file = File::open(&options.module).with_context(|| format!("cannot open {shown}"))?;
    let mut module = Vec::new();
    file.take(limits::MODULE_BYTES + 1)
        .read_to_end(&mut module)
        .with_context(|| format!("cannot read {shown}"))?;
    let started = Instant::now();
    match compile(&module, options.target.purpose, options.target.isa) {
        Ok((facts, code)) => {
            let out = options.out.display();
            File::create(&options.out)
                .and_then(|mut file| file.write_all(&code))
                .with_context(|| format!("cannot write {out}"))?;
            let initial_kib = facts.memory.initial_bytes >> 10;
            println!(
                "{out}: {:?}, {} KiB of code from {} KiB in {} ms, {} imports, memory {initial_kib} KiB at first, isa {}",
                facts.world,
                code.len() >> 10,
                module.len() >> 10,
                started.elapsed().as_millis(),
                facts.imports.len(),
                options.target.isa.0,
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            eprintln!("{shown}: {} ({})", error, error.name());
            Ok(ExitCode::from(if error.is_modules_fault() { 1 } else { 2 }))
        }
    }
}
