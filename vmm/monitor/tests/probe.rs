//! The probe, on whatever host this is.

#[test]
fn finds_what_the_other_suites_rely_on() {
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_warren-vmm"))
        .args(["probe", "--json"])
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let kvm = std::path::Path::new("/dev/kvm").exists();
    assert_eq!(run.status.success(), kvm, "{run:?}");
    assert_eq!(found["wasm"]["can"], kvm, "{found:#}");
    if !kvm {
        return;
    }
    let works = |name: &str| {
        let findings = found["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["name"] == name).unwrap()["works"].clone()
    };
    for name in ["device", "user mode", "exit", "immediate exit"] {
        assert_eq!(works(name), true, "{name}");
    }
    // Each template is one that this host can be, or the host lacks something by name; its own it always can be.
    let templates = found["templates"].as_array().unwrap();
    let names: Vec<_> = templates.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["host", "amd-zen", "amd-v3", "intel-skylake"]);
    for one in templates {
        let (seen, lacks) = (one["seen"].as_str(), one["lacks"].as_str());
        let is_digest = |seen: &str| seen.len() == 64 && seen.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(seen.is_some_and(is_digest) != lacks.is_some_and(|why| why.contains("leaf")), "{one}");
    }
    assert!(templates[0]["seen"].is_string(), "{}", templates[0]);
    // Without native supervisor mode there is no Linux guest, and the sentence says why.
    if found["linux"]["can"] == false {
        assert!(found["linux"]["because"].as_str().unwrap().contains("supervisor-mode"), "{found:#}");
    }
}
