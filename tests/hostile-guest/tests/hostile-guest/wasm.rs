//! Cases of a Wasm guest: machine code in ring 3 and replies that break the contract of the mailbox.

use super::host::{Host, connect};
use super::support::code::{descriptor, jump, payload, read, set, write};
use super::support::sealed;
use super::support::vmm::{Invocation, call_with, load, send, spec};
use super::{LIMITS, Seen};
use warren_abi::mailbox::{LOG_OFFSET, MAILBOX_LEN, REPLY_HEADER_OFFSET};
use warren_abi::window::{BOOT, CODE, HEAP, MAILBOX, PROGRAM, STACK, SUPERVISOR, TASK};
use warren_abi::{DOORBELL_PORT, EXCEPTION_PORT};
use warren_sandbox_plan::request::{ExitStatus, Program};
use warren_vmm_protocol::{ControlReply, ControlRequest, LoadError, Outcome, Role};

/// What a guest does.
pub(crate) enum Does {
    /// Its event runs this code.
    Code(Vec<u8>),
    /// It answers its event with these words of a reply header: kind, error, exit code, detail, payload, log.
    Replies([u32; 6]),
    /// Its init does what this letter stands for.
    Init(u8),
}

/// A case.
pub(crate) struct Case {
    pub(crate) name: String,
    does: Does,
    /// The VMM's exit status.
    status: i32,
    /// A piece of what is said of it.
    words: String,
}

const FAULT: i32 = 21;
const TIMED_OUT: i32 = 20;
/// How long an event may take that does not end.
const EVENT_MS: u32 = 300;

/// Every case.
pub(crate) fn every() -> Vec<Case> {
    let mut cases = replies();
    cases.extend(accesses());
    cases.extend(instructions());
    cases.extend(ports());
    cases.extend(floods());
    for (letter, status, name, words) in [
        (b'E', 22, "init that fails", "no"),
        (b'P', FAULT, "init that panics", "panicked: no"),
        (b'r', FAULT, "init that answers an event", "a response to no event"),
        (b'f', FAULT, "init that runs what is no instruction", "exception 6"),
        (b's', TIMED_OUT, "init that never ends", ""),
    ] {
        cases.push(Case { name: name.into(), does: Does::Init(letter), status, words: words.into() });
    }
    cases
}

/// Runs one: what was seen, and what of it is not as its row says.
pub(crate) fn run(host: &mut Host, case: &Case) -> (Seen, Option<String>) {
    let (name, running) = host.spawn(Program::Vmm, LIMITS.memory_bytes >> 20);
    let (mut control, mut invoke) = (connect(&running, Role::Control), connect(&running, Role::Invoke));
    let init = match &case.does {
        Does::Code(code) => descriptor(code),
        Does::Replies(_) => b"R".to_vec(),
        Does::Init(letter) => vec![*letter],
    };
    let mut request = spec(init.len());
    if matches!(case.does, Does::Init(b's')) {
        request.init_timeout_ms = EVENT_MS;
    }
    let said = match load(&mut control, &request, &[&sealed(&init)]) {
        ControlReply::LoadFailed { reason: LoadError::Function { detail, .. }, .. } => detail,
        ControlReply::LoadFailed { reason: LoadError::Guest(text), .. } => text,
        ControlReply::LoadFailed { reason: LoadError::TimedOut, .. } => String::new(),
        ControlReply::Loaded { .. } if !matches!(case.does, Does::Init(_)) => {
            let given = match &case.does {
                Does::Replies(words) => {
                    let mut given = vec![b'h'];
                    given.extend(words.iter().flat_map(|word| word.to_le_bytes()));
                    given.extend([0xFF; 16]);
                    given
                }
                _ => payload(),
            };
            let limit = if case.status == TIMED_OUT { EVENT_MS } else { 60_000 };
            let Invocation { done, .. } = call_with(&mut invoke, &given, limit);
            match done.outcome {
                Outcome::Guest(text) => text,
                Outcome::TimedOut => String::new(),
                // It goes on: it is ended, and that is told as another end than its row says.
                other => {
                    send(&mut control, &ControlRequest::Shutdown);
                    format!("{other:?}")
                }
            }
        }
        other => format!("{other:?}"),
    };
    drop(invoke);
    let seen = host.jailed_end(&name, running, 300);
    let differs = if seen.exit != Some(ExitStatus::Code(case.status)) {
        Some(format!("status {} was expected, it is {:?}: {said}", case.status, seen.exit))
    } else if !said.contains(&case.words) || (case.status != 22 && !seen.log.contains(&case.words)) {
        Some(format!("{:?} was expected of {said:?}", case.words))
    } else {
        None
    };
    (seen, differs)
}

fn dies(name: impl Into<String>, code: Vec<u8>, words: impl Into<String>) -> Case {
    Case { name: name.into(), does: Does::Code(code), status: FAULT, words: words.into() }
}

/// Headers of replies that lie.
fn replies() -> Vec<Case> {
    [
        ("a reply of no kind", [0, 0, 0, 0, 0, 0], "Kind(0)"),
        ("a reply of the kind behind the last", [6, 0, 0, 0, 0, 0], "Kind(6)"),
        ("a reply of the largest kind", [u32::MAX, 0, 0, 0, 0, 0], "Kind(4294967295)"),
        ("an error that is none", [3, 0, 0, 0, 0, 0], "Error(0)"),
        ("an unknown error", [3, 99, 0, 0, 0, 0], "Error(99)"),
        ("a payload one byte too long", [2, 0, 0, 0, (6 << 20) + 1, 0], "Payload(6291457)"),
        ("a payload of 4 GiB", [2, 0, 0, 0, u32::MAX, 0], "Payload(4294967295)"),
        ("a detail one byte too long", [3, 1, 0, 0x4001, 0, 0], "Detail(16385)"),
        ("a detail of 4 GiB", [3, 1, 0, u32::MAX, 0, 0], "Detail(4294967295)"),
        ("a log one byte too long", [2, 0, 0, 0, 0, 0x4_0001], "Log(262145)"),
        ("a log of 4 GiB", [4, 0, 0, 0, 0, u32::MAX], "Log(4294967295)"),
        ("ready once more", [1, 0, 0, 0, 0, 0], "ready again"),
        ("a panic", [5, 0, 0, 2, 0, 0], "guest program panicked: no"),
    ]
    .into_iter()
    .map(|(name, words, said)| Case {
        name: name.into(),
        does: Does::Replies(words),
        status: FAULT,
        words: said.into(),
    })
    .collect()
}

/// Addresses that are not its own, or not so.
fn accesses() -> Vec<Case> {
    let beyond_stack = STACK.base + STACK.max_len;
    let heap_end = HEAP.base + (32 << 20);
    [
        ("read null", read(0), 0),
        ("read the descriptors", read(SUPERVISOR.base), SUPERVISOR.base),
        ("read the exceptions", read(0x2000), 0x2000),
        ("read the stubs", read(0x3000), 0x3000),
        ("write the exception stack", write(0x4800), 0x4800),
        ("read a page table", read(0x5000), 0x5000),
        ("write a page table", write(0x5000), 0x5000),
        ("write the boot page", write(BOOT.base), BOOT.base),
        ("write the program", write(PROGRAM.base), PROGRAM.base),
        ("write the code", write(CODE.base), CODE.base),
        ("read beyond the code", read(CODE.base + 0x1000), CODE.base + 0x1000),
        ("read the absent task archive", read(TASK.base), TASK.base),
        ("read beyond the mailbox", read(MAILBOX.base + MAILBOX_LEN), MAILBOX.base + MAILBOX_LEN),
        ("read below the stack", read(STACK.base - 8), STACK.base - 8),
        ("read above the stack", read(beyond_stack), beyond_stack),
        ("read beyond the heap", read(heap_end), heap_end),
        ("write beyond the heap", write(heap_end), heap_end),
        ("read half a TiB further", read(1 << 39), 1 << 39),
        ("run the heap", jump(HEAP.base), HEAP.base),
        ("run the mailbox", jump(MAILBOX.base + 0x10_0000), MAILBOX.base + 0x10_0000),
        ("run the stack", jump(STACK.base), STACK.base),
        ("run the boot page", jump(BOOT.base), BOOT.base),
        ("run the descriptors", jump(SUPERVISOR.base), SUPERVISOR.base),
    ]
    .into_iter()
    .map(|(name, code, address)| dies(name, code, format!("address {address:#x}")))
    .chain([
        dies("read what is no address", read(1 << 63), "exception 13"),
        dies("run what is no address", jump(1 << 63), "exception 13"),
    ])
    .collect()
}

/// Instructions that are not for it.
fn instructions() -> Vec<Case> {
    [
        ("ud2", &[0x0F, 0x0B][..]),
        ("a division by zero", &[0x31, 0xC9, 0xF7, 0xF1]),
        ("int3", &[0xCC]),
        ("icebp", &[0xF1]),
        ("a single step", &[0x9C, 0x81, 0x0C, 0x24, 0, 1, 0, 0, 0x9D, 0x90, 0x90]),
        ("hlt", &[0xF4]),
        ("cli with a privilege that it has not", &[0xFA, 0x0F, 0x0B]),
        ("rdmsr", &[0x0F, 0x32]),
        ("wrmsr", &[0x0F, 0x30]),
        ("mov cr3", &[0x0F, 0x22, 0xD8]),
        ("mov from cr0", &[0x0F, 0x20, 0xC0]),
        ("mov cr8", &[0x44, 0x0F, 0x22, 0xC0]),
        ("mov to dr7", &[0x0F, 0x23, 0xF8]),
        ("clts", &[0x0F, 0x06]),
        ("lgdt", &[0x0F, 0x01, 0x14, 0x24]),
        ("lidt", &[0x0F, 0x01, 0x1C, 0x24]),
        ("lldt", &[0x0F, 0x00, 0xD0]),
        ("ltr", &[0x0F, 0x00, 0xD8]),
        ("lmsw", &[0x0F, 0x01, 0xF0]),
        ("invlpg", &[0x0F, 0x01, 0x38]),
        ("invd", &[0x0F, 0x08]),
        ("wbinvd", &[0x0F, 0x09]),
        ("swapgs", &[0x0F, 0x01, 0xF8]),
        ("xsetbv", &[0x31, 0xC9, 0x0F, 0x01, 0xD1]),
        ("syscall", &[0x0F, 0x05]),
        ("sysret", &[0x48, 0x0F, 0x07]),
        ("sysenter", &[0x0F, 0x34]),
        ("int 0x80", &[0xCD, 0x80]),
        ("int 14", &[0xCD, 0x0E]),
        ("int 2", &[0xCD, 0x02]),
        ("iret to ring 0", &[0x6A, 0, 0x54, 0x9C, 0x6A, 8, 0x50, 0x48, 0xCF]),
        ("a far return to ring 0", &[0x6A, 8, 0x50, 0x48, 0xCB]),
        ("a data segment of ring 0", &[0xB8, 0x10, 0, 0, 0, 0x8E, 0xD0]),
        ("vmmcall", &[0x0F, 0x01, 0xD9]),
        ("vmcall", &[0x0F, 0x01, 0xC1]),
        ("vmrun", &[0x0F, 0x01, 0xD8]),
        ("vmload", &[0x0F, 0x01, 0xDA]),
        ("stgi", &[0x0F, 0x01, 0xDC]),
        ("vmxoff", &[0x0F, 0x01, 0xC4]),
        ("vmlaunch", &[0x0F, 0x01, 0xC2]),
        ("getsec", &[0x0F, 0x37]),
        ("rsm", &[0x0F, 0xAA]),
    ]
    .into_iter()
    .map(|(name, bytes)| dies(name, [&set(0)[..], bytes, &[0x0F, 0x0B]].concat(), ""))
    .collect()
}

/// Ports: it has one, for four bytes outwards.
fn ports() -> Vec<Case> {
    let mut cases = vec![
        dies("in from the keyboard", vec![0xE4, 0x60, 0x0F, 0x0B], ""),
        dies("out to the keyboard", vec![0xE6, 0x60, 0x0F, 0x0B], ""),
    ];
    for (name, port, code) in [
        ("in from the doorbell", DOORBELL_PORT, 0xED),
        ("out beyond the doorbell", DOORBELL_PORT + 4, 0xEE),
        ("a made-up exception", EXCEPTION_PORT, 0xEF),
        ("out to the first serial port", 0x3F8, 0xEE),
        ("out to the sleep control", 0x600, 0xEE),
        ("out to the configuration of PCI", 0xCF8, 0xEF),
    ] {
        let [low, high] = port.to_le_bytes();
        cases.push(dies(name, vec![0x66, 0xBA, low, high, code, 0x0F, 0x0B], ""));
    }
    cases.push(dies(
        "a doorbell of a whole buffer, and a reply of no kind",
        // mov dword ptr [rax], 0; mov rsi, rax; mov ecx, 4096; mov dx, doorbell; rep outsb; ud2
        [
            &set(MAILBOX.base + REPLY_HEADER_OFFSET)[..],
            &[
                0xC7, 0, 0, 0, 0, 0, 0x48, 0x89, 0xC6, 0xB9, 0, 16, 0, 0, 0x66, 0xBA, 0x0B, 0x0D, 0xF3, 0x6E,
                0x0F, 0x0B,
            ],
        ]
        .concat(),
        "",
    ));
    cases
}

/// What does not end by itself.
fn floods() -> Vec<Case> {
    let header = MAILBOX.base + REPLY_HEADER_OFFSET;
    let runs = |name: &str, code: Vec<u8>| Case {
        name: name.into(),
        does: Does::Code(code),
        status: TIMED_OUT,
        words: String::new(),
    };
    // kind = 4, log_len as given, doorbell, again and again.
    let flushes = |len: u32| {
        let mut code = set(header);
        code.extend([0xC7, 0x00, 4, 0, 0, 0, 0xC7, 0x40, 20]);
        code.extend(len.to_le_bytes());
        code.extend([0x66, 0xBA, 0x0B, 0x0D, 0xEE, 0xEB, 0xEC]);
        code
    };
    let log = MAILBOX.base + LOG_OFFSET;
    vec![
        runs("spinning", vec![0xEB, 0xFE]),
        runs("pauses without end", vec![0xF3, 0x90, 0xEB, 0xFC]),
        runs("log flushes of a byte without end", flushes(1)),
        runs("log flushes of nothing without end", flushes(0)),
        runs("log flushes of all there is room for without end", flushes(0x4_0000)),
        runs(
            "spinning behind a log",
            [set(log), vec![0xC6, 0, b'Z'], set(header + 20), vec![0xC6, 0, 1, 0xEB, 0xFE]].concat(),
        ),
        runs("writing all of its heap without end", {
            // mov rdi, HEAP; mov ecx, 4 Mi; rep stosq; again
            let mut code = set(HEAP.base);
            code.extend([0x48, 0x89, 0xC7, 0xB9, 0, 0, 0x40, 0, 0xF3, 0x48, 0xAB, 0xEB, 0xE9]);
            code
        }),
        dies("a stack without end", vec![0x50, 0xEB, 0xFD], "exception 14"),
        dies(
            "a stack in the mailbox's end",
            [set(MAILBOX.base + MAILBOX_LEN + 8), vec![0x48, 0x94, 0x50, 0xEB, 0xFD]].concat(),
            "exception 14",
        ),
        dies("a stack where no address is", [set(1 << 63), vec![0x48, 0x94, 0x50]].concat(), "exception 1"),
    ]
}
