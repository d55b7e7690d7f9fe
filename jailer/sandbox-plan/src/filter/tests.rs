#![expect(clippy::cast_possible_truncation, reason = "lower halves are meant")]

use super::*;
use crate::{compiler, linux, monitor};
use alloc::vec::Vec;
use proptest::prelude::*;

/// A call as the kernel describes it to a filter: number, architecture, arguments.
type Call = (u32, u32, [u64; 6]);

/// What a filter returns, and in how many steps: as the kernel would run it.
fn run(filter: &Filter, (number, architecture, arguments): Call) -> (u32, usize) {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => architecture,
        _ => {
            let argument = arguments[((offset - FIRST_ARGUMENT) / 8) as usize];
            if (offset - FIRST_ARGUMENT).is_multiple_of(8) {
                argument as u32
            } else {
                (argument >> 32) as u32
            }
        }
    };
    let (mut at, mut loaded) = (0, 0);
    for step in 1.. {
        let Instruction { code, jump_true, jump_false, value } = filter.instructions()[at];
        at += 1;
        let holds = match code {
            LOAD => {
                loaded = word(value);
                continue;
            }
            RETURN => return (value, step),
            JUMP => {
                at += value as usize;
                continue;
            }
            IF_EQUAL => loaded == value,
            IF_AT_LEAST => loaded >= value,
            IF_ANY_BIT => loaded & value != 0,
            other => panic!("{other:#x}"),
        };
        at += usize::from(if holds { jump_true } else { jump_false });
    }
    unreachable!()
}

/// What the rows say.
fn allowed(rows: &[SystemCall], (number, architecture, arguments): Call) -> bool {
    let of_row = |row: &&SystemCall| row.number == i64::from(number);
    let holds = |row: &SystemCall| match row.rule {
        ArgumentRule::Any => true,
        ArgumentRule::Equals { argument, value } => arguments[usize::from(argument)] as u32 == value as u32,
        ArgumentRule::BitsClear { argument, bits } => arguments[usize::from(argument)] & bits == 0,
    };
    architecture == X86_64 && rows.iter().filter(of_row).any(holds)
}

fn compile(rows: &[SystemCall]) -> Filter {
    let mut all = Rows::new();
    for row in rows {
        all.push(*row);
    }
    all.filter()
}

fn agree(rows: &[SystemCall], filter: &Filter, call: Call) {
    let expected = if allowed(rows, call) { ALLOW } else { KILL };
    assert_eq!(run(filter, call).0, expected, "{call:x?}");
}

/// Every table that there is, with the filter that its threads put on.
fn tables() -> Vec<(Vec<SystemCall>, &'static Filter)> {
    let of_monitor = |keeps: fn(monitor::Thread) -> bool| {
        monitor::SYSTEM_CALLS.iter().filter(|row| keeps(row.thread)).map(|row| row.call).collect()
    };
    let mut tables = alloc::vec![
        (compiler::SYSTEM_CALLS.to_vec(), &compiler::FILTER),
        (of_monitor(|_| true), &monitor::START),
        (of_monitor(monitor::Thread::is_main), &monitor::MAIN),
        (of_monitor(monitor::Thread::is_vcpu), &monitor::VCPU),
    ];
    for (threads, filter) in [
        (linux::START, &linux::filters::START),
        (linux::MAIN, &linux::filters::MAIN),
        (linux::VCPU, &linux::filters::VCPU),
        (linux::WORKER, &linux::filters::WORKER),
        (linux::NETWORK, &linux::filters::NETWORK),
        (linux::DISK, &linux::filters::DISK),
        (linux::PAGER, &linux::filters::PAGER),
    ] {
        tables.push((linux::calls_of(threads).copied().collect(), filter));
    }
    tables
}

/// Each number around each row, each value around each that is compared, and bits of both halves.
#[test]
fn the_filters_do_what_the_tables_say() {
    for (rows, filter) in tables() {
        let compared = rows.iter().filter_map(|row| match row.rule {
            ArgumentRule::Equals { value, .. } => Some(value),
            ArgumentRule::BitsClear { bits, .. } => Some(bits),
            ArgumentRule::Any => None,
        });
        let mut values: Vec<u64> =
            compared.flat_map(|value| [value.wrapping_sub(1), value, value + 1]).collect();
        values.extend([0, 3, 7, u64::from(u32::MAX), u64::MAX, 0xFFFF_FFFF_0000_0000]);
        let high: Vec<u64> = values.iter().map(|value| value | 0xABCD << 32).collect();
        values.extend(high);
        for number in (0..600).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            let takes =
                rows.iter().any(|row| row.number == i64::from(number) && row.rule != ArgumentRule::Any);
            for value in values.iter().take(if takes { usize::MAX } else { 1 }) {
                for argument in 0..6 {
                    let mut arguments = [0; 6];
                    arguments[argument] = *value;
                    agree(&rows, filter, (number, X86_64, arguments));
                }
            }
            agree(&rows, filter, (number, 0x4000_0003, [0; 6]));
        }
    }
}

/// The kernel runs it so often that a chain is felt.
#[test]
fn no_verdict_takes_many_steps() {
    for (rows, filter) in tables() {
        let numbers = 0..600;
        let most = numbers.map(|number| run(filter, (number, X86_64, [1; 6])).1).max();
        assert!(most <= Some(20), "{most:?} steps, {} rows", rows.len());
    }
}

#[test]
fn a_chain_too_long_for_a_comparison_is_jumped_over() {
    // Every other number compares bits of its own: the half below the middle is longer than a comparison can jump.
    let bits = |number: i64| {
        let rule = ArgumentRule::BitsClear { argument: 1, bits: 1 << (number % 31) };
        SystemCall { name: "", number, rule, why: "" }
    };
    let rows: Vec<_> = (0..128).map(|row| bits(2 * row)).collect();
    let filter = compile(&rows);
    assert!(filter.instructions().iter().any(|instruction| instruction.code == JUMP));
    for number in 0..300 {
        for value in (0..31).map(|bit| 1 << bit) {
            agree(&rows, &filter, (number, X86_64, [0, value, 0, 0, 0, 0]));
        }
    }
}

fn rule() -> impl Strategy<Value = Vec<ArgumentRule>> {
    let bits = (0_u8..6, any::<u32>())
        .prop_map(|(argument, bits)| alloc::vec![ArgumentRule::BitsClear { argument, bits: bits.into() }]);
    let values = (0_u8..6, prop::collection::btree_set(0_u32..40, 1..5));
    let equals = values.prop_map(|(argument, values)| {
        values.into_iter().map(|value| ArgumentRule::Equals { argument, value: value.into() }).collect()
    });
    prop_oneof![Just(alloc::vec![ArgumentRule::Any]), bits, equals]
}

proptest! {
    #[test]
    fn any_table_is_what_its_filter_does(
        table in prop::collection::btree_map(0_u32..60, rule(), 0..20),
        calls in prop::collection::vec((0_u32..64, any::<bool>(), prop::array::uniform6(0_u64..42), any::<bool>()), 1..200),
    ) {
        let row = |(number, rules): (&u32, &Vec<ArgumentRule>)| {
            let row = |rule: &ArgumentRule| SystemCall { name: "", number: i64::from(*number), rule: *rule, why: "" };
            rules.iter().map(row).collect::<Vec<_>>()
        };
        let rows: Vec<SystemCall> = table.iter().rev().flat_map(row).collect();
        let filter = compile(&rows);
        for (number, native, arguments, high) in calls {
            let arguments = arguments.map(|value| if high { value | 7 << 32 } else { value });
            agree(&rows, &filter, (number, if native { X86_64 } else { 0x4000_0003 }, arguments));
        }
    }
}
