//! Modules made to hurt the compiler: each is refused by name, in no time and little memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it found by failing")]

mod common;

use common::{command, component, leb, module, repeat, section};
use proptest::prelude::*;
use warren_abi::isa::IsaSet;
use warren_artefact::{CompileError, Purpose};
use warren_compile::inspect::inspect;

/// Refused because of `what`.
#[track_caller]
fn too_much_of(what: &str, module: &[u8]) {
    match inspect(module, Purpose::Function) {
        Err(CompileError::TooComplex { what: found, found: count, limit }) => {
            assert_eq!(found, what);
            assert!(count > limit);
        }
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn one_function_too_big() {
    let nop = [0x01_u8];
    too_much_of("bytes of one function", &command(1, 0, &nop.repeat(1 << 20)));
    too_much_of("locals of one function", &command(1, 20_001, &[]));
    let blocks = |count: usize| [[0x02, 0x40].repeat(count), [0x0B].repeat(count)].concat();
    too_much_of("nested blocks", &command(1, 0, &blocks(4_096)));
    let flat = [0x03, 0x40, 0x0B].repeat(16_385);
    too_much_of("branches of one function", &command(1, 0, &flat));
    too_much_of("branches times locals of one function", &command(1, 4_096, &flat[..3 * 1_025]));
    // br_table 0 0 0 ... 0: one byte a target.
    let table = [vec![0x41, 0, 0x0E], repeat(&[0], 65_537), vec![0]].concat();
    too_much_of("branch targets of one function", &command(1, 0, &table));
}

#[test]
fn small_functions_too_many() {
    too_much_of("functions", &command(100_001, 0, &[]));
    // 800 KB that declare 2,000,000,000 locals.
    too_much_of("locals", &command(100_000, 20_000, &[]));
    let loops = [0x03, 0x40, 0x0B].repeat(1_000);
    too_much_of("branches times locals", &command(20, 4_000, &loops));
}

#[test]
fn types_too_many_or_too_wide() {
    too_much_of("types", &module(&[section(1, &repeat(b"\x60\0\0", 20_001))]));
    let wide = [vec![1, 0x60], repeat(&[0x7F], 257), vec![0]].concat();
    too_much_of("parameters of a function type", &module(&[section(1, &wide)]));
    let wide = [vec![1, 0x60, 0], repeat(&[0x7F], 65)].concat();
    too_much_of("results of a function type", &module(&[section(1, &wide)]));
}

#[test]
fn sections_too_long() {
    let empty_type = section(1, b"\x01\x60\0\0");
    let import = b"\x01a\x01b\0\0";
    too_much_of("imports", &module(&[empty_type.clone(), section(2, &repeat(import, 4_097))]));
    too_much_of("tables", &module(&[section(4, &repeat(&[0x70, 0, 0], 65))]));
    let big_table = [vec![1, 0x70, 0], leb((1 << 20) + 1)].concat();
    too_much_of("table elements", &module(&[section(4, &big_table)]));
    too_much_of("memories", &module(&[section(5, &repeat(&[0, 0], 33))]));
    too_much_of("globals", &module(&[section(6, &repeat(&[0x7F, 0, 0x41, 0, 0x0B], 16_385))]));
    // A count that lies is refused for what it claims, before anything is made for it.
    too_much_of("exports", &module(&[section(7, &leb(1_000_000))]));
    let table = section(4, &[1, 0x70, 0, 1]);
    let segment = [0, 0x41, 0, 0x0B, 0];
    too_much_of("element segments", &module(&[table.clone(), section(9, &repeat(&segment, 16_385))]));
    let items = [vec![1, 0, 0x41, 0, 0x0B], repeat(&[0], (1 << 20) + 1)].concat();
    too_much_of("element items", &module(&[table, section(9, &items)]));
    too_much_of("data segments", &module(&[section(5, &[1, 0, 1]), section(11, &repeat(&[1, 0], 65_537))]));
}

#[test]
fn components_in_components() {
    let mut nested = component(&[]);
    for _ in 0..4 {
        nested = component(&[section(4, &nested)]);
    }
    too_much_of("levels of components in components", &nested);
    too_much_of("components", &component(&vec![section(4, &component(&[])); 64]));
    too_much_of("core modules", &component(&vec![section(1, &module(&[])); 33]));
    // Types: list<u8>, 16,385 times.
    too_much_of("component types", &component(&[section(7, &repeat(&[0x70, 0x7D], 16_385))]));
}

/// A type of 131,072 leaves, made of 17 small definitions.
#[test]
fn a_component_type_that_explodes_is_only_a_wrong_type() {
    let doubled = |level: u32| format!("(type $t{level} (tuple $t{} $t{}))", level - 1, level - 1);
    let types: String = (1..17).map(doubled).collect();
    let mut text = format!("(component (type $t0 (tuple u8 u8)){types}");
    text.push_str(
        "(core module $m (memory (export \"memory\") 1) (func (export \"f\") (param i32)))
         (core instance $i (instantiate $m))
         (type $f (func (result u8)))
         (core module $n (func (export \"g\") (result i32) i32.const 0))
         (core instance $j (instantiate $n))
         (func $g (type $f) (canon lift (core func $j \"g\")))
         (type $big (func (param \"a\" $t16)))
         (import \"warren:function/host@0.1.0\" (instance (export \"log\" (func (type $big)))))
         (export \"init\" (func $g)))",
    );
    let bytes = wat::parse_str(&text).unwrap();
    let error = inspect(&bytes, Purpose::Function).unwrap_err();
    assert!(matches!(error, CompileError::WrongType { .. }), "{error:?}");
    assert!(error.to_string().len() < 2_000);
}

/// At the limits, not over them: these compile.
#[test]
fn at_the_limits_it_compiles() {
    let loops = [0x03, 0x40, 0x0B].repeat(1_000);
    let (facts, code) =
        warren_compile::compile(&command(2, 500, &loops), Purpose::Function, IsaSet::BASELINE).unwrap();
    assert_eq!(facts.code_len, code.len() as u64);
}

fn good() -> Vec<u8> {
    wat::parse_str(
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32)))
           (memory (export \"memory\") 1 4) (table 2 funcref) (elem (i32.const 0) 0 1) (data (i32.const 0) \"x\")
           (func (export \"_start\") (local i32) (block (br_if 0 (local.get 0)) (call 0 (i32.const 1)))))",
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is done to a good module, the answer is a good module or a typed error, and never a panic.
    #[test]
    fn changed_modules_get_an_answer(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut in any::<prop::sample::Index>(), cuts in any::<bool>()) {
        let mut bytes = good();
        for (position, value) in changes {
            let position = position.index(bytes.len());
            bytes[position] = value;
        }
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Err(error) = inspect(&bytes, Purpose::Function) {
            prop_assert!(error.is_modules_fault(), "{error:?}");
        }
    }
}
