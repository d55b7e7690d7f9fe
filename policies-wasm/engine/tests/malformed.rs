//! Answers that break the canonical ABI itself, written by hand: no compiler makes these.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use support::{RUNTIME, fleet, open};
use warren_policy_engine::rules::{Demand, PlaceRequest, Scored};
use warren_policy_engine::{About, By, Placement, WhyNative};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A placement policy whose `choose` returns the address `answer`, with the bytes of `data` at address 64.
fn policy(answer: &str, data: &str, init: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
          (import "[export]warren:policy/placer@0.2.0" "[resource-new]state"
            (func $new (param i32) (result i32)))
          (memory (export "memory") 1)
          (global $top (mut i32) (i32.const 1024))
          (data (i32.const 64) "{data}")
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
            (global.get $top)
            (global.set $top (i32.add (global.get $top) (local.get 3))))
          (func (export "warren:policy/placer@0.2.0#[constructor]state") (param i32 i32) (result i32)
            {init}
            (call $new (i32.const 1)))
          (func (export "warren:policy/placer@0.2.0#[method]state.snapshot") (param i32 i32 i32))
          (func (export "warren:policy/placer@0.2.0#[method]state.choose")
            (param i32 i32 i32 i64 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            {answer}))"#
    );
    let mut module = wat::parse_str(text).expect("the module is well-formed");
    let mut resolve = Resolve::default();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/policy");
    let (package, _) = resolve.push_path(path).expect("the contract parses");
    let world = resolve.select_world(&[package], Some("placement")).expect("there is such a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("it is embedded");
    ComponentEncoder::default()
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .expect("it is a component")
}

fn check(answer: &str, data: &str, by: By) {
    let placement = Placement::new(&fleet(5));
    placement.load(&open(&policy(answer, data, ""))).expect("it loads");
    RUNTIME.settle();
    let fits = vec![Scored { host: 2, score: 500, overcommit_mib: 0, siblings: 0, locality: 0 }];
    let demand = Demand { memory_mib: 256, ..Demand::default() };
    let request = PlaceRequest { now_ms: 1, seed: 1, demand, fits, zones: Vec::new() };
    for _ in 0..2 {
        let decided = placement.choose(&About::default(), &request);
        assert_eq!(decided.by, by, "{}", placement.status().last_error);
    }
}

#[test]
fn what_choose_returns() {
    let invalid = By::Native(WhyNative::Invalid);
    // `on`, host 2, score 0, the first reason: well-formed, so that the others differ in one thing.
    check("(i32.const 64)", r"\00\00\00\00\02\00\00\00\00\00\00\00\00", By::Wasm);
    check("(i32.const 64)", r"\01", By::Wasm);
    // Neither case of `place`, and a reason that does not exist.
    check("(i32.const 64)", r"\02", invalid);
    check("(i32.const 64)", r"\00\00\00\00\02\00\00\00\00\00\00\00\ff", invalid);
    // Outside its memory, at its very end, and not aligned.
    check("(i32.const -16)", "", invalid);
    check("(i32.const 65528)", "", invalid);
    check("(i32.const 65)", "", invalid);
}

#[test]
fn a_policy_that_does_not_start_is_not_loaded() {
    for init in ["(unreachable)", "(loop (br 0))", "(drop (memory.grow (i32.const 65536))) (unreachable)"] {
        let placement = Placement::new(&fleet(5));
        let refused = placement.load(&open(&policy("(i32.const 64)", "", init)));
        assert!(refused.is_err(), "{init}");
        let decided = placement.choose(&About::default(), &PlaceRequest::default());
        assert_eq!(decided.by, By::Native(WhyNative::NoPolicy));
    }
}
