//! Whoever changes what compiled code looks like raises `SETTINGS_VERSION`, so that artefacts of before are not found.
#![allow(clippy::unwrap_used, reason = "a test says what it found by failing")]

use warren_artefact::settings::SETTINGS_VERSION;

/// The version, and the digest of the settings it stands for. Change both together: a version that was ever landed is never
/// used for other settings.
const PINNED: (u32, &str) = (2, "63ffad4782221950b3bb8f56f23c6b4b59c90f59c0f463cf8d8c3518a29de636");

/// From a mark to another, without comments and blanks: what the compiler sees.
fn settings(text: &str, from: &str, to: &str) -> String {
    let begin = text.find(from).unwrap();
    let end = begin + text[begin..].find(to).unwrap();
    let lines = text[begin..end].lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.flat_map(|line| line.chars().filter(|letter| !letter.is_whitespace())).collect()
}

#[test]
fn other_settings_have_another_version() {
    let parts = [
        // Functions: compiler and guest.
        settings(include_str!("../../../vmm/abi/src/engine.rs"), "pub const MAX_WASM_STACK", "    }};"),
        // Policies: compiler and engine.
        settings(
            include_str!("../../artefact/src/settings.rs"),
            "macro_rules! configure_policy_engine",
            "    }};",
        ),
        // The compiler alone.
        settings(include_str!("../src/engine.rs"), "fn engine(", "    Engine::new("),
    ];
    assert!(parts[2].contains("cranelift_nan_canonicalization(true)") && parts[1].contains("consume_fuel"));
    let digest = blake3(&parts.join("|"));
    assert_eq!(
        (SETTINGS_VERSION, digest.as_str()),
        PINNED,
        "the settings changed: raise SETTINGS_VERSION (host-agent/artefact/src/settings.rs) and pin both here"
    );
}

fn blake3(text: &str) -> String {
    warren_artefact::Digest::of(text.as_bytes()).to_string()
}
