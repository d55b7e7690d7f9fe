//! What agent and jailer keep to themselves.

use crate::rig::Rig;
use std::{fs, os::unix::fs::PermissionsExt as _};

fn core_limits(pid: i32) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    line.split_whitespace().skip(4).take(2).map(str::to_owned).collect()
}

/// Neither leaves a core dump: a limit of one byte ends those that are piped to a program as well.
#[tokio::test(flavor = "multi_thread")]
async fn no_core_dumps_and_closed_data() {
    let mut rig = Rig::start(&[]).await;
    assert_eq!(core_limits(rig.agent.pid()), ["1", "1"]);
    assert_eq!(core_limits(rig.jailer_pid()), ["0", "0"]);
    let data = rig.dir.path().join("agent");
    let mode = || fs::metadata(&data).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o700);
    // Opened by somebody meanwhile: closed again.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    rig.restart_agent();
    assert_eq!(mode(), 0o700);
}
