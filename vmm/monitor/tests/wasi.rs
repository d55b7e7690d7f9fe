//! The rules of WASI preview 1 in a real VM: `tests/functions/wasi-rules` tries each of its cases in a new instance, two
//! times over, so that what one leaves behind would show in the next (vmm/guest/wasi/CONFORMANCE.md).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a step that fails here fails the test")]

#[macro_use]
mod support;

use std::os::unix::net::UnixStream;
use support::real::{module, try_compile};
use support::vmm::call;
use support::{Life, Vmm, sealed, spec};
use warren_vmm_protocol::{FunctionError, Outcome};

in_every_life!(every_case_holds_in_the_vm, without_arguments_and_variables_there_are_none);

const TABLE: &str = include_str!("../../guest/wasi/CONFORMANCE.md");

/// One file as a tar archive, which the guest shows under `/var/task`.
fn archive(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000001");
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut archive = [&header[..], bytes].concat();
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn start(life: Life, arguments: &[&str], variables: &[(&str, &str)]) -> (Vmm, UnixStream) {
    let code = try_compile(&module("WARREN_WASI_RULES", "wasi-rules")).unwrap();
    let task = archive("rules/greeting.txt", b"hello from the task\n");
    let mut spec = spec(code.len());
    spec.function.args = arguments.iter().map(ToString::to_string).collect();
    spec.function.env = variables.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    spec.function.tmp_quota_bytes = 8 << 20;
    spec.task_len = task.len() as u64;
    let (vmm, _control) = life.give(&spec, &[&sealed(&code), &sealed(&task)]);
    let invoke = vmm.invoke();
    (vmm, invoke)
}

/// Cases for a function without arguments and variables.
const BARE: [&str; 2] =
    ["assemblyscript/args_sizes_get-no-arguments", "assemblyscript/environ_sizes_get-no-variables"];

/// What a case must end with: those that exit on purpose say so in their name.
fn is_as_told(name: &str, outcome: &Outcome, payload: &[u8]) -> bool {
    match name {
        "assemblyscript/proc_exit-failure" => {
            matches!(outcome, Outcome::Function { error: FunctionError::Exit, exit_code: 33, .. })
        }
        "assemblyscript/proc_exit-success" => *outcome == Outcome::Response && payload.is_empty(),
        "assemblyscript/fd_write-to-stdout" => *outcome == Outcome::Response && payload == b"hello ok",
        _ => *outcome == Outcome::Response && payload == b"ok",
    }
}

fn every_case_holds_in_the_vm(life: Life) {
    let arguments = ["rules", "first", "the \"second\" arg", ""];
    let variables = [("A", "text"), ("B", "escap \" ing"), ("C", "new\nline"), ("D", "")];
    let (_vmm, mut invoke) = start(life, &arguments, &variables);
    let names = String::from_utf8(call(&mut invoke, b"list").payload).unwrap();
    let names: Vec<&str> = names.lines().collect();
    assert!(names.len() > 60, "{names:?}");
    let mut wrong = Vec::new();
    for name in names.iter().chain(&names) {
        assert!(TABLE.contains(&format!("`{name}`")), "CONFORMANCE.md does not list {name}");
        if BARE.contains(name) {
            continue;
        }
        let back = call(&mut invoke, name.as_bytes());
        if !is_as_told(name, &back.done.outcome, &back.payload) {
            wrong.push(format!("{name}: {:?} {}", back.done.outcome, String::from_utf8_lossy(&back.log)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn without_arguments_and_variables_there_are_none(life: Life) {
    let (_vmm, mut invoke) = start(life, &[], &[]);
    for name in BARE {
        let back = call(&mut invoke, name.as_bytes());
        assert!(is_as_told(name, &back.done.outcome, &back.payload), "{name}: {:?}", back.done.outcome);
    }
}
