//! What is deployed: a name, sizes, settings.

use crate::{bad_request, clip, is_name};
use tonic::Code;
use warren_proto::{
    error::{Fault, WireError},
    reason,
    v1::{EnvVar, FunctionConfig, FunctionLimits, Kind, Network, SnapStart},
};

/// Most bytes of a module, and of a task archive.
const MAX_CODE_BYTES: usize = 64 << 20;
const MAX_FILES_BYTES: usize = warren_bundle::MAX_ARCHIVE_BYTES;
/// Least and most MiB that a Linux function may write, as in AWS Lambda.
const LINUX_TMP_MIB: (u32, u32) = (512, 10_240);
/// Most bytes of a function's environment, names and values; the same for its arguments.
const MAX_STRINGS_BYTES: usize = 16 << 10;
/// Most variables, and most arguments: on a host each costs some bytes beside its own, and a Linux guest takes no more.
const MAX_STRINGS: usize = 512;

/// A function's name.
pub fn name(name: &str) -> Result<(), WireError> {
    let message =
        "a function's name must be 1 to 64 characters of [a-z0-9-], beginning with a letter or digit";
    if is_name(name) { Ok(()) } else { Err(bad_request(message)) }
}

/// Sizes of what is deployed.
pub fn code(code: &[u8], task: &[u8]) -> Result<(), WireError> {
    if code.is_empty() {
        return Err(bad_request("code is empty; give a WebAssembly module or component"));
    }
    size("code", code).and_then(|()| size("task", task))
}

/// The size of a Linux function's files, which lie on a disk of its guest.
pub fn files(bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() <= MAX_FILES_BYTES {
        return Ok(());
    }
    let message =
        format!("the files have {} bytes; at most {MAX_FILES_BYTES} (250 MiB) are taken", bytes.len());
    Err(WireError::new(Code::InvalidArgument, reason::CODE_TOO_LARGE, Fault::Caller, message))
}

/// The size of one thing that is deployed.
fn size(what: &str, bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() <= MAX_CODE_BYTES {
        return Ok(());
    }
    let message = format!(
        "{what} has {} bytes; at most {MAX_CODE_BYTES} (64 MiB) are taken, for a Wasm function's code and files are mapped \
         into its memory",
        bytes.len()
    );
    Err(WireError::new(Code::InvalidArgument, reason::CODE_TOO_LARGE, Fault::Caller, message))
}

/// Settings, with every default filled in; what passes, passes again and is the same.
pub fn config(config: Option<FunctionConfig>) -> Result<FunctionConfig, WireError> {
    let mut config = config.unwrap_or_default();
    let mut limits = config.limits.unwrap_or_default();
    let linux = config.kind() == Kind::Linux;
    fill(&mut limits, linux);
    let tmp = if linux { LINUX_TMP_MIB } else { (1, (limits.memory_mib / 2).max(1)) };
    let ranges = [
        ("memory_mib", limits.memory_mib, 128, 10_240),
        ("timeout_ms", limits.timeout_ms, 1, 900_000),
        ("tmp_mib", limits.tmp_mib, tmp.0, tmp.1),
    ];
    for (what, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            return Err(bad_request(format!("{what} is {value}; it must be {least} to {most}")));
        }
    }
    config.limits = Some(limits);
    config.set_snap_start(snap_start(config.kind(), config.snap_start()));
    strings(&config)?;
    runtime(&config, linux)?;
    Ok(config)
}

/// What a version's setting means when nobody says it.
#[must_use]
pub fn snap_start(kind: Kind, said: SnapStart) -> SnapStart {
    match (kind, said) {
        (Kind::Wasm | Kind::Unspecified, SnapStart::Unspecified) => SnapStart::Published,
        (_, said) => said,
    }
}

/// What only Linux functions have, and what they lack.
fn runtime(config: &FunctionConfig, linux: bool) -> Result<(), WireError> {
    if !linux {
        let plain = config.runtime.is_empty() && config.handler.is_empty();
        return match (plain, config.network()) {
            (true, Network::Unspecified | Network::None) => Ok(()),
            (true, Network::Outbound) => Err(bad_request(
                "a Wasm function reaches nothing; outbound network is for Linux functions (--kind linux)",
            )),
            _ => Err(bad_request("runtime and handler are for Linux functions (--kind linux)")),
        };
    }
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if !((1..=64).contains(&config.runtime.len()) && config.runtime.bytes().all(plain)) {
        return Err(bad_request(
            "a Linux function needs a runtime; `warren runtime ls` names those of this machine",
        ));
    }
    if config.handler.len() > 128 || config.handler.contains('\0') {
        return Err(bad_request("a handler has at most 128 bytes"));
    }
    let name = |name: &str| {
        let mut letters = name.bytes();
        letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
            && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match config.env.iter().find(|var| !name(&var.name)) {
        Some(var) => {
            Err(bad_request(format!("environment name {:?} is not one that a shell takes", clip(&var.name))))
        }
        None if config.args.is_empty() => Ok(()),
        None => Err(bad_request(
            "a Linux function takes no arguments; its handler and environment tell it what to do",
        )),
    }
}

fn fill(limits: &mut FunctionLimits, linux: bool) {
    let default = |value: &mut u32, default| {
        if *value == 0 {
            *value = default;
        }
    };
    default(&mut limits.memory_mib, 128);
    default(&mut limits.timeout_ms, 3000);
    default(&mut limits.tmp_mib, if linux { LINUX_TMP_MIB.0 } else { 64 });
}

fn strings(config: &FunctionConfig) -> Result<(), WireError> {
    let named =
        |var: &EnvVar| !var.name.is_empty() && !var.name.contains(['=', '\0']) && !var.value.contains('\0');
    if !config.env.iter().all(named) {
        return Err(bad_request("environment names must not be empty nor hold '=' or a zero byte"));
    }
    if config.args.iter().any(|arg| arg.contains('\0')) {
        return Err(bad_request("arguments must not hold a zero byte"));
    }
    for (what, count) in [("environment variables", config.env.len()), ("arguments", config.args.len())] {
        if count > MAX_STRINGS {
            return Err(bad_request(format!("there are {count} {what}; at most {MAX_STRINGS} are taken")));
        }
    }
    let env: usize = config.env.iter().map(|var| var.name.len() + var.value.len() + 2).sum();
    let args: usize = config.args.iter().map(|arg| arg.len() + 1).sum();
    for (what, bytes) in [("environment", env), ("arguments", args)] {
        if bytes > MAX_STRINGS_BYTES {
            return Err(bad_request(format!(
                "the {what} take {bytes} bytes; at most {MAX_STRINGS_BYTES} are taken"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
