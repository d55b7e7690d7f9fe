//! What a guest's kernel must have been built with, told before a machine is booted with one that was not.
//!
//! What may be a module as well is [`crate::modules`]' business; here is what must be in the kernel itself, because it is needed
//! before a module can be loaded, or because nothing would tell what is missing later: such a guest hangs without a word.

/// What must read `y`, and what for.
const BUILT_IN: [(&str, &str); 23] = [
    ("X86_64", "64-bit guests"),
    ("ACPI", "devices are named in its tables"),
    ("SMP", "more than one vCPU"),
    ("X86_X2APIC", "interrupts of more than one vCPU"),
    ("KVM_GUEST", "the hypervisor's clock"),
    ("SERIAL_8250_CONSOLE", "the console, where a guest's last words are"),
    ("BLK_DEV_INITRD", "init"),
    ("RD_GZIP", "init"),
    ("MODULES", "drivers"),
    ("BINFMT_ELF", "programs"),
    ("BINFMT_SCRIPT", "a bootstrap that is a script"),
    ("PROC_FS", "/proc"),
    ("SYSFS", "/sys"),
    ("DEVTMPFS", "/dev"),
    ("TMPFS", "/dev/shm, /run"),
    ("CGROUPS", "programs held between events"),
    ("UNIX", "sockets"),
    ("INET", "the Runtime API"),
    ("EPOLL", "init's event loop"),
    ("EVENTFD", "init's event loop"),
    ("SIGNALFD", "init's children"),
    ("TIMERFD", "time limits"),
    ("FUTEX", "threads"),
];

/// What a kernel lacks, in words; `None` if nothing. `config` is the text that is `/boot/config-RELEASE` in its package.
#[must_use]
pub fn lacking(config: &str) -> Option<String> {
    let built_in = |option: &str| {
        config
            .lines()
            .any(|line| line.strip_prefix("CONFIG_").and_then(|rest| rest.strip_prefix(option)) == Some("=y"))
    };
    let lacks: Vec<_> = BUILT_IN
        .iter()
        .filter(|(option, _)| !built_in(option))
        .map(|(option, purpose)| format!("CONFIG_{option}=y ({purpose})"))
        .collect();
    (!lacks.is_empty()).then(|| lacks.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration with everything, but for one line that is another.
    fn with(option: &str, line: &str) -> String {
        let lines = BUILT_IN
            .iter()
            .map(|(name, _)| if *name == option { line.to_owned() } else { format!("CONFIG_{name}=y") });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_option_is_missed() {
        assert_eq!(lacking(&with("", "")), None);
        for (option, purpose) in BUILT_IN {
            let said = Some(format!("CONFIG_{option}=y ({purpose})"));
            for line in [
                String::new(),
                format!("# CONFIG_{option} is not set"),
                format!("CONFIG_{option}=m"),
                format!("CONFIG_{option}_MORE=y"),
                format!(" CONFIG_{option}=y"),
            ] {
                assert_eq!(lacking(&with(option, &line)), said, "{line:?}");
            }
        }
        assert_eq!(lacking("").map(|said| said.matches("CONFIG_").count()), Some(BUILT_IN.len()));
    }
}
