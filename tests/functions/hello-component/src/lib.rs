//! Greets as a `warren:function` component: `init` once, `handle` for each event.
//!
//! The event is a name as text; the answer says how many events this sandbox has seen, which a command (a new instance
//! for each event) could not.
#![allow(unsafe_code, reason = "wit-bindgen's generated exports")]

use bindings::warren::function::host;
use bindings::{Context, Guest};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[allow(missing_docs, clippy::pedantic, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({
        world: "function",
        path: "../../../vmm/guest/wit",
        generate_all,
        pub_export_macro: true,
    });
}

struct Hello;

static SEEN: AtomicU64 = AtomicU64::new(0);
/// Set while an event is handled: the instance lives from event to event, so a second event at once would see it.
static RUNNING: AtomicBool = AtomicBool::new(false);
/// An event that begins so keeps it set for a while.
const LINGER: &str = "linger ";
/// Turns of a loop: long enough that a second event would come in time.
const TURNS: u32 = 20_000;

impl Guest for Hello {
    fn init() -> Result<(), String> {
        host::log("hello-component starts");
        Ok(())
    }

    fn handle(event: Vec<u8>, context: Context) -> Result<Vec<u8>, String> {
        let name = String::from_utf8(event).map_err(|_| "the event is not text".to_owned())?;
        let seen = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
        host::log(&format!("request {} greets {name}", context.request_id));
        match name.as_str() {
            "" => Err("the event is empty".to_owned()),
            "trap" => panic!("asked to trap"),
            text => {
                if RUNNING.swap(true, Ordering::SeqCst) {
                    return Err("another event is handled in this instance".to_owned());
                }
                let (name, turns) = text.strip_prefix(LINGER).map_or((text, 0), |name| (name, TURNS));
                for turn in 0..turns {
                    black_box(turn);
                }
                RUNNING.store(false, Ordering::SeqCst);
                Ok(format!("{{\"message\":\"Hello, {name}!\",\"seen\":{seen}}}").into_bytes())
            }
        }
    }
}

bindings::export!(Hello with_types_in bindings);
