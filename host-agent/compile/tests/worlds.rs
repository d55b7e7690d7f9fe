//! What is recognised, and what exactly is said of what is not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it found by failing")]

use warren_abi::isa::IsaSet;
use warren_artefact::{CompileError, MemoryDemand, Purpose, World};
use warren_compile::{compile, inspect::inspect};

fn function(text: &str) -> Result<World, CompileError> {
    inspect(&wat::parse_str(text).unwrap(), Purpose::Function).map(|found| found.world)
}

const START: &str = "(memory (export \"memory\") 1) (func (export \"_start\"))";

#[test]
fn commands() {
    assert_eq!(function(&format!("(module {START})")), Ok(World::Preview1));
    let import =
        "(import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i32 i32 i32 i32) (result i32)))";
    assert_eq!(function(&format!("(module {import} {START})")), Ok(World::Preview1));
}

#[test]
fn missing_imports_are_named() {
    let cases = [
        ("\"env\" \"system\" (func)", "env.system"),
        ("\"wasi_unstable\" \"fd_write\" (func)", "wasi_unstable.fd_write"),
        ("\"wasi_snapshot_preview1\" \"sock_connect\" (func)", "wasi_snapshot_preview1.sock_connect"),
        ("\"env\" \"memory\" (memory 1)", "env.memory"),
        ("\"\" \"\" (func)", "."),
    ];
    for (import, name) in cases {
        match function(
            &format!("(module (import {import}) {START})").replace("memory (export", "memory $m (export"),
        ) {
            Err(CompileError::MissingImport { import, .. }) => assert_eq!(import, name),
            other => panic!("{name}: {other:?}"),
        }
    }
    let wrong =
        function(&format!("(module (import \"wasi_snapshot_preview1\" \"fd_read\" (global i32)) {START})"));
    assert!(matches!(wrong, Err(CompileError::WrongType { .. })), "{wrong:?}");
}

#[test]
fn missing_exports_are_named() {
    let missing = |text: &str| match function(text) {
        Err(CompileError::MissingExport { export, .. }) => export,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing("(module)"), "_start");
    assert_eq!(missing("(module (func (export \"_initialize\")) (memory (export \"memory\") 1))"), "_start");
    assert_eq!(missing("(module (func (export \"_start\")))"), "memory");
    assert_eq!(missing("(component)"), "init");
    let wrong = |text: &str| matches!(function(text), Err(CompileError::WrongType { .. }));
    assert!(wrong("(module (memory (export \"memory\") 1) (func (export \"_start\") (param i32)))"));
    assert!(wrong("(module (memory (export \"memory\") 1) (global (export \"_start\") i32 (i32.const 0)))"));
    assert!(wrong("(module (func (export \"_start\")) (func (export \"memory\")))"));
}

#[test]
fn what_is_not_offered_is_invalid() {
    let not_offered = [
        ("threads", "(memory (export \"memory\") 1 1 shared)"),
        ("memory64", "(memory (export \"memory\") i64 1)"),
        ("gc", "(memory (export \"memory\") 1) (type (struct))"),
        ("exceptions", "(memory (export \"memory\") 1) (tag)"),
        ("externref", "(memory (export \"memory\") 1) (func (param externref))"),
    ];
    for (name, rest) in not_offered {
        let found = function(&format!("(module (func (export \"_start\")) {rest})"));
        assert!(matches!(found, Err(CompileError::Invalid { .. })), "{name}: {found:?}");
    }
    let malformed = inspect(b"#!/bin/sh\n", Purpose::Function);
    assert!(matches!(malformed, Err(CompileError::Malformed { .. })), "{malformed:?}");
    let ill_typed = function("(module (memory (export \"memory\") 1) (func (export \"_start\") i32.add))");
    assert!(matches!(ill_typed, Err(CompileError::Invalid { .. })), "{ill_typed:?}");
}

#[test]
fn memory_demand_is_read_and_added_up() {
    let demand = |text: &str| inspect(&wat::parse_str(text).unwrap(), Purpose::Function).unwrap().memory;
    let page = 65_536;
    let module = |memories: &str| format!("(module {memories} (func (export \"_start\")))");
    let one = demand(&module("(memory (export \"memory\") 17 256)"));
    assert_eq!(one, MemoryDemand { initial_bytes: 17 * page, max_bytes: Some(256 * page) });
    let two = demand(&module("(memory (export \"memory\") 1 2) (memory 3 4)"));
    assert_eq!(two, MemoryDemand { initial_bytes: 4 * page, max_bytes: Some(6 * page) });
    for endless in
        ["(memory (export \"memory\") 1) (memory 3 4)", "(memory (export \"memory\") 3 4) (memory 1)"]
    {
        assert_eq!(demand(&module(endless)), MemoryDemand { initial_bytes: 4 * page, max_bytes: None });
    }
}

const GOOD_COMPONENT: &str = r#"(component
  (type $ctx' (record (field "request-id" string) (field "function-name" string) (field "function-version" u64)
    (field "remaining-ns" u64) (field "memory-mib" u32)))
  (import "context" (type $ctx (eq $ctx')))
  (import "warren:function/host@0.1.0" (instance (export "wall-clock" (func (result u64)))))
  (core module $m
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func (export "init") (result i32) i32.const 0)
    (func (export "handle") (param i32 i32 i32 i32 i32 i32 i64 i64 i32) (result i32) i32.const 0))
  (core instance $i (instantiate $m))
  (func $init (result (result (error string)))
    (canon lift (core func $i "init") (memory (core memory $i "memory"))))
  (func $handle (param "event" (list u8)) (param "context" $ctx) (result (result (list u8) (error string)))
    (canon lift (core func $i "handle") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (export "init" (func $init))
  (export "handle" (func $handle)))"#;

#[test]
fn function_components() {
    assert_eq!(function(GOOD_COMPONENT), Ok(World::Function));
    let (facts, _) =
        compile(&wat::parse_str(GOOD_COMPONENT).unwrap(), Purpose::Function, IsaSet::BASELINE).unwrap();
    assert_eq!(facts.memory.initial_bytes, 65_536);
    assert!(facts.imports.contains(&"warren:function/host@0.1.0".to_owned()), "{:?}", facts.imports);

    let changed = |from: &str, to: &str| {
        assert!(GOOD_COMPONENT.contains(from));
        function(&GOOD_COMPONENT.replace(from, to)).unwrap_err()
    };
    // Another host function, another interface, another version, another shape of either side.
    let cases = [
        (changed("\"wall-clock\"", "\"shell\""), "missing-import"),
        (changed("warren:function/host@0.1.0", "wasi:cli/exit@0.2.0"), "missing-import"),
        (changed("host@0.1.0", "host@0.2.0"), "missing-import"),
        (changed("(result u64)", "(result u32)"), "wrong-type"),
        (changed("(export \"handle\" (func $handle))", ""), "missing-export"),
        (changed("(export \"handle\" (func $handle))", "(export \"handle\" (func $init))"), "wrong-type"),
        (changed("\"remaining-ns\" u64", "\"remaining\" u64"), "wrong-type"),
    ];
    for (error, name) in cases {
        assert_eq!(error.name(), name, "{error}");
    }
}

#[test]
fn policies_import_nothing_and_fulfil_one_world() {
    let policy =
        |text: &str| inspect(&wat::parse_str(text).unwrap(), Purpose::Policy).map(|found| found.world);
    let exporting = |name: &str| format!("(instance $i) (export \"{name}\" (instance $i))");
    let one = |name: &str| policy(&format!("(component {})", exporting(name)));
    assert_eq!(one("warren:policy/packer@0.2.0"), Ok(World::Packing));
    assert_eq!(one("warren:policy/placer@0.2.3"), Ok(World::Placement));
    assert_eq!(one("warren:policy/router@0.2.0"), Ok(World::Routing));
    assert_eq!(one("warren:policy/router@0.1.0").unwrap_err().name(), "missing-export");

    let types = "(import \"warren:policy/types@0.2.0\" (instance (type (record (field \"a\" u8)))))";
    let router = exporting("warren:policy/router@0.2.0");
    assert_eq!(policy(&format!("(component {types} {router})")), Ok(World::Routing));
    let refused = [
        ("(import \"wasi:clocks/wall-clock@0.2.0\" (instance))", "missing-import"),
        (
            "(import \"warren:policy/types@0.2.0\" (instance (export \"now\" (func (result u64)))))",
            "missing-import",
        ),
        ("(import \"now\" (func (result u64)))", "missing-import"),
    ];
    for (import, name) in refused {
        assert_eq!(policy(&format!("(component {import} {router})")).unwrap_err().name(), name, "{import}");
    }
    let both = policy(
        "(component (instance $i) (export \"warren:policy/router@0.2.0\" (instance $i)) (export \"warren:policy/packer@0.2.0\" (instance $i)))",
    );
    assert_eq!(both.unwrap_err().name(), "wrong-kind");
    let core = inspect(&wat::parse_str("(module)").unwrap(), Purpose::Policy);
    assert_eq!(core.unwrap_err().name(), "wrong-kind");
}

/// Equal keys must be equal code.
#[test]
fn compilation_is_repeatable_and_follows_the_isa() {
    let module =
        wat::parse_str(format!("(module {START} (func (param f64) (result f64) (f64.floor (local.get 0))))"))
            .unwrap();
    let code = |isa| compile(&module, Purpose::Function, isa).unwrap().1;
    assert_eq!(code(IsaSet::BASELINE), code(IsaSet::BASELINE));
    assert_ne!(code(IsaSet::BASELINE), code(IsaSet::detect(|_| true)));
    let huge = inspect(&vec![0; (64 << 20) + 1], Purpose::Function);
    assert_eq!(huge, Err(CompileError::TooLarge { limit: 64 << 20 }));
}
