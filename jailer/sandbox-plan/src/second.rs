//! Part two of a jail as lines of text: what the jailed program does to itself before it reads from any descriptor.
//!
//! The tables are the programs' own ([`crate::compiler`], [`crate::monitor`], [`crate::linux`], [`crate::pager`]): their filters are compiled with them ([`crate::filter`]), this prints them.

use crate::{
    compiler::{self, ArgumentRule, SystemCall},
    linux,
    monitor::{self, Thread},
    pager,
    request::Program,
};
use alloc::{format, string::String, string::ToString, vec::Vec};

/// What they do first; the pager, which opens files, something else.
const BEFORE_THE_FILTER: [&str; 2] = [
    "no_new_privs, again",
    "landlock: every path, port, signal and abstract socket denied, as far as the kernel can",
];

/// The steps, in order, one line each; below a filter, one indented line a call.
#[must_use]
pub fn lines(program: Program) -> Vec<String> {
    let before = if let Program::Pager(_) = program { pager::BEFORE_THE_FILTER } else { BEFORE_THE_FILTER };
    let mut lines: Vec<String> = before.iter().map(ToString::to_string).collect();
    match program {
        Program::Pager(_) => {
            let calls = &pager::SYSTEM_CALLS;
            lines.push(format!("seccomp: {} rules, any other call kills", calls.len()));
            lines.extend(calls.iter().map(|call| call_line("", call)));
        }
        Program::Vmm | Program::Restore | Program::PagedRestore => {
            let rows = &monitor::SYSTEM_CALLS;
            lines.push(format!("seccomp: {} rules at the start, any other call kills", rows.len()));
            lines.push("the VM is made, the vCPU thread started".to_string());
            let main = rows.iter().filter(|row| row.thread.is_main()).count();
            let vcpu = rows.iter().filter(|row| row.thread.is_vcpu()).count();
            lines.push(format!(
                "seccomp, each thread a filter of its own: main {main} rules, vcpu {vcpu} rules"
            ));
            lines.extend(rows.iter().map(|row| {
                let threads = match row.thread {
                    Thread::StartOnly => "start",
                    Thread::Main => "start main",
                    Thread::Vcpu => "start      vcpu",
                    Thread::Both => "start main vcpu",
                };
                call_line(threads, &row.call)
            }));
        }
        Program::Linux(_) | Program::PagedLinux(_) => {
            let rows = &linux::SYSTEM_CALLS;
            lines.push(format!("seccomp: {} rules at the start, any other call kills", rows.len()));
            lines.push(
                "the VM is made; the worker, network, disk, vCPU and, with --paged, pager threads started"
                    .to_string(),
            );
            let threads = [
                ("main", linux::MAIN),
                ("vcpu", linux::VCPU),
                ("worker", linux::WORKER),
                ("network", linux::NETWORK),
                ("disk", linux::DISK),
                ("pager", linux::PAGER),
            ];
            let counts = threads.map(|(name, bit)| format!("{name} {} rules", linux::calls_of(bit).count()));
            lines.push(format!("seccomp, each thread a filter of its own: {}", counts.join(", ")));
            lines.extend(rows.iter().map(|row| {
                let kept = threads.iter().filter(|(_, bit)| row.threads & bit != 0);
                let names: Vec<&str> = core::iter::once("start").chain(kept.map(|(name, _)| *name)).collect();
                call_line(&names.join(" "), &row.call)
            }));
        }
        Program::Compile(_) => {
            let calls = &compiler::SYSTEM_CALLS;
            lines.push(format!("seccomp: {} rules, any other call kills", calls.len()));
            lines.extend(calls.iter().map(|call| call_line("", call)));
        }
    }
    lines
}

fn call_line(threads: &str, call: &SystemCall) -> String {
    let rule = match call.rule {
        ArgumentRule::Any => String::new(),
        ArgumentRule::Equals { argument, value } => format!("argument {argument} = {value:#x}"),
        ArgumentRule::BitsClear { argument, bits } => format!("argument {argument} without {bits:#x}"),
    };
    format!("    {threads:<31}{:<15} {rule:<24} {}", call.name, call.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{CompileOptions, CompilePurpose, LinuxMachine, PagerOptions};

    /// What is printed is the table: a rule that is applied and not shown, or the reverse, would be a lie.
    #[test]
    fn every_rule_is_printed_once() {
        let shown = |program| lines(program).iter().filter(|line| line.starts_with("    ")).count();
        for program in [Program::Vmm, Program::Restore, Program::PagedRestore] {
            assert_eq!(shown(program), monitor::SYSTEM_CALLS.len());
        }
        let machine = LinuxMachine { memory_mib: 128, cpus: 1, disks: 2, disk_bytes: 0, network: false };
        assert_eq!(shown(Program::Linux(machine)), linux::SYSTEM_CALLS.len());
        assert_eq!(shown(Program::PagedLinux(machine)), linux::SYSTEM_CALLS.len());
        let compile = Program::Compile(CompileOptions { purpose: CompilePurpose::Function, isa: 0 });
        assert_eq!(shown(compile), compiler::SYSTEM_CALLS.len());
        let pager = Program::Pager(PagerOptions { cache_mib: 1, memory_mib: 1 });
        assert_eq!(shown(pager), pager::SYSTEM_CALLS.len());
    }
}
