//! The environment variables of runtime and extensions, as Lambda sets them. Pure.

use super::places::Places;
use std::collections::BTreeMap;
use warren_vmm_protocol::guest::{GuestConfig, LogFormat, SandboxKind};

/// What extensions do not get, as on Lambda.
const RUNTIME_ONLY: [&str; 7] = [
    "_HANDLER",
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_XRAY_CONTEXT_MISSING",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
];

/// Names to values.
pub(crate) type Variables = BTreeMap<String, String>;

/// The runtime's.
pub(crate) fn of_runtime(config: &GuestConfig, places: &Places, api: &str) -> Variables {
    let task = places.task.to_string_lossy();
    let runtime = places.runtime.to_string_lossy();
    let opt = places.opt.to_string_lossy();
    let mut variables = Variables::new();
    let mut set = |name: &str, value: String| {
        variables.insert(name.to_owned(), value);
    };
    // What the function may set otherwise.
    set("PATH", format!("/usr/local/bin:/usr/bin:/bin:{opt}/bin"));
    set("LD_LIBRARY_PATH", format!("/lib64:/usr/lib64:{runtime}:{runtime}/lib:{task}:{task}/lib:{opt}/lib"));
    set("LANG", "en_US.UTF-8".to_owned());
    set("TZ", ":UTC".to_owned());
    set("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".to_owned());
    set("NODE_PATH", format!("{opt}/nodejs/node_modules:{runtime}/node_modules:{runtime}:{task}"));
    set("PYTHONPATH", runtime.clone().into_owned());
    set("AWS_DEFAULT_REGION", config.region.to_string());
    for (name, value) in config.env.iter() {
        set(name, value.to_owned());
    }
    // What it may not.
    set("_HANDLER", config.handler.to_string());
    set("LAMBDA_TASK_ROOT", task.into_owned());
    set("LAMBDA_RUNTIME_DIR", runtime.into_owned());
    set("AWS_REGION", config.region.to_string());
    set("AWS_LAMBDA_FUNCTION_NAME", config.function.to_string());
    set("AWS_LAMBDA_FUNCTION_VERSION", config.function_version.to_string());
    set("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", config.memory.get().to_string());
    set("AWS_LAMBDA_INITIALIZATION_TYPE", kind(config.kind).to_owned());
    set("AWS_LAMBDA_LOG_GROUP_NAME", config.log_group.to_string());
    set("AWS_LAMBDA_LOG_STREAM_NAME", config.log_stream.to_string());
    let format = match config.log_format {
        LogFormat::Text => "Text",
        LogFormat::Json => "JSON",
    };
    set("AWS_LAMBDA_LOG_FORMAT", format.to_owned());
    set("AWS_LAMBDA_RUNTIME_API", api.to_owned());
    if !config.log_level.as_str().is_empty() {
        set("AWS_LAMBDA_LOG_LEVEL", config.log_level.to_string());
    }
    if !config.runtime.as_str().is_empty() {
        set("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", config.runtime));
    }
    variables
}

/// An extension's.
pub(crate) fn of_extension(config: &GuestConfig, places: &Places, api: &str) -> Variables {
    let mut variables = of_runtime(config, places, api);
    for name in RUNTIME_ONLY {
        variables.remove(name);
    }
    variables
}

/// As `AWS_LAMBDA_INITIALIZATION_TYPE` and platform records have it.
pub(crate) const fn kind(kind: SandboxKind) -> &'static str {
    match kind {
        SandboxKind::OnDemand => "on-demand",
        SandboxKind::Provisioned => "provisioned-concurrency",
        SandboxKind::Snapshot => "snap-start",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_vmm_protocol::guest::Text;

    #[test]
    fn a_function_sets_what_is_its_own_and_nothing_else() {
        let mut config = GuestConfig::of(Text::cut("f"));
        config.runtime = Text::cut("python3.11");
        let own = [
            ("TZ", "Europe/Berlin"),
            ("MINE", "1"),
            ("AWS_LAMBDA_FUNCTION_NAME", "other"),
            ("_HANDLER", "x"),
        ];
        config.env =
            own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec().try_into().unwrap();
        config.handler = Text::cut("app.handler");
        let runtime = of_runtime(&config, &Places::guest(), "127.0.0.1:9001");
        for (name, value) in [
            ("TZ", "Europe/Berlin"),
            ("MINE", "1"),
            ("AWS_LAMBDA_FUNCTION_NAME", "f"),
            ("_HANDLER", "app.handler"),
            ("LAMBDA_TASK_ROOT", "/var/task"),
            ("AWS_EXECUTION_ENV", "AWS_Lambda_python3.11"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ] {
            assert_eq!(runtime.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!runtime.contains_key("AWS_LAMBDA_LOG_LEVEL"));
        let extension = of_extension(&config, &Places::guest(), "127.0.0.1:9001");
        for name in RUNTIME_ONLY {
            assert!(runtime.contains_key(name) && !extension.contains_key(name), "{name}");
        }
        assert_eq!(extension.len() + RUNTIME_ONLY.len(), runtime.len());
    }
}
