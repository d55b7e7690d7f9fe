//! `warren fn`.

use super::{
    payload,
    runtime::{self, Place},
    snap_start::{self, SnapStart},
    task,
};
use crate::{screen, shape};
use bytes::Bytes;
use std::path::PathBuf;
use warren_client::{Client, Failure, Outcome};
use warren_proto::v1::{
    CreateFunctionRequest, DeleteFunctionRequest, EnvVar, Function, FunctionConfig, FunctionLimits,
    FunctionVersion, GetFunctionRequest, Kind as WireKind, ListFunctionsRequest, Network,
    SnapStart as WireSnapStart, UpdateFunctionRequest,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Deploy a new function; answers when it is compiled, checked and durable.
    #[command(after_help = "\
Examples:
  warren fn create hello hello.wasm
  warren fn create thumb thumbnail.wasm --memory-mib 256 --timeout-ms 10000 --arg 320
  warren fn create site site.wasm --task ./public --env LANG=C --json-response
  warren fn create resize --kind linux --runtime debian-python --code ./app --handler app.handler
  warren fn create legacy --kind linux --runtime debian-base --code bootstrap.zip --memory-mib 256
  warren fn create raw raw.wasm --snap-start off
  warren fn create own --kind linux --rootfs root.ext4 --handler main")]
    Create(Deploy),
    /// Make a new version with other code or other settings; what is not given stays.
    #[command(after_help = "\
Examples:
  warren fn update hello hello.wasm
  warren fn update hello --timeout-ms 10000 --expected-revision 3
  warren fn update resize --code ./app")]
    Update {
        #[command(flatten)]
        deploy: Deploy,
        /// Fail unless the function is still at this revision (`warren fn show`).
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        expected_revision: u64,
    },
    /// List functions.
    #[command(after_help = "Examples:\n  warren fn ls\n  warren fn ls --json | jq '.[].name'")]
    Ls,
    /// Show one function.
    #[command(after_help = "Examples:\n  warren fn show hello")]
    Show {
        /// Its name.
        name: String,
    },
    /// Remove functions with all their versions.
    #[command(after_help = "Examples:\n  warren fn rm hello thumb")]
    Rm {
        /// Their names.
        #[arg(required = true)]
        names: Vec<String>,
    },
}

/// What a deploy says.
#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// 1 to 64 characters of a-z, 0-9 and -, beginning with a letter or digit.
    name: String,
    /// The module: WASI preview 1 or a warren:function component.
    #[arg(value_name = "FILE.wasm")]
    file: Option<PathBuf>,
    /// The same, named; for a Linux function its files: a directory, a zip (50 MiB) or a tar.
    #[arg(long, conflicts_with = "file", value_name = "FILE.wasm|DIR|ZIP")]
    code: Option<PathBuf>,
    /// What it is: WebAssembly, or files that a runtime runs in a Linux microVM [default: wasm].
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Which runtime runs it (`warren runtime ls`); Linux only.
    #[arg(long, value_name = "NAME", conflicts_with = "rootfs")]
    runtime: Option<String>,
    /// An ext4 or EROFS image of this machine as a runtime of its own, for a Warren on this machine; Linux only.
    #[arg(long, value_name = "IMAGE")]
    rootfs: Option<PathBuf>,
    /// What the runtime calls, for instance `app.handler`; Linux only.
    #[arg(long)]
    handler: Option<String>,
    /// What it reaches: the world (never the host, other functions, private networks), or nothing; Linux only [default: the
    /// world, where the host can].
    #[arg(long, value_enum)]
    network: Option<Reach>,
    #[command(flatten)]
    place: Place,
    /// Memory, 128 to 10240 MiB; CPU comes in proportion.
    #[arg(long)]
    memory_mib: Option<u32>,
    /// Longest run, 1 to 900000 ms.
    #[arg(long)]
    timeout_ms: Option<u32>,
    /// Space under /tmp, MiB: up to half of the memory; for a Linux function 512 to 10240, for all it writes.
    #[arg(long)]
    tmp_mib: Option<u32>,
    /// An environment variable; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// An argument after the program's name; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    arg: Vec<String>,
    /// A directory or a tar file, shown to the function under /var/task.
    #[arg(long, value_name = "DIR|TAR")]
    task: Option<PathBuf>,
    /// Most invocations at once.
    #[arg(long)]
    reserved_concurrency: Option<u32>,
    /// Make a snapshot before the version is there, from which its cold starts begin; or never [default: published, for Wasm].
    #[arg(long, value_enum)]
    snap_start: Option<SnapStart>,
    /// The answer must be JSON; one that is not is the function's error.
    #[arg(long)]
    json_response: bool,
}

/// What a function is, as typed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Wasm,
    Linux,
}

/// What a function reaches, as typed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Reach {
    Outbound,
    None,
}

impl Reach {
    const fn on_wire(self) -> Network {
        match self {
            Self::Outbound => Network::Outbound,
            Self::None => Network::None,
        }
    }
}

/// Runs one.
pub(crate) async fn run(command: Command, client: &Client, json: bool) -> Outcome {
    match command {
        Command::Create(deploy) => {
            let request = create(&deploy)?;
            let events = client.functions().create_function_stream(request).await?.into_inner();
            let function = snap_start::watch(&deploy.name, events).await?;
            show(&function, json, "created");
        }
        Command::Update { deploy, expected_revision } => {
            let request = update(client, &deploy, expected_revision).await?;
            let events = client.functions().update_function_stream(request).await?.into_inner();
            let function = snap_start::watch(&deploy.name, events).await?;
            show(&function, json, "updated");
        }
        Command::Ls => list(&all(client).await?, json),
        Command::Show { name } => {
            let function = client.functions().get_function(GetFunctionRequest { name }).await?.into_inner();
            details(&function, json);
        }
        Command::Rm { names } => {
            for name in names {
                let request = DeleteFunctionRequest { name: name.clone(), expected_revision: 0 };
                client.functions().delete_function(request).await?;
                if !json {
                    screen::print(&format!("{name} removed"));
                }
            }
        }
    }
    Ok(())
}

/// Every function, page by page.
pub(crate) async fn all(client: &Client) -> Outcome<Vec<Function>> {
    let mut functions = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListFunctionsRequest { page_size: 0, page_token };
        let page = client.functions().list_functions(request).await?.into_inner();
        functions.extend(page.functions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(functions);
        }
    }
}

fn create(deploy: &Deploy) -> Outcome<CreateFunctionRequest> {
    let linux = deploy.kind == Some(Kind::Linux);
    let code = deploy.file.as_ref().or(deploy.code.as_ref());
    let code = match (code, linux) {
        (Some(path), true) => task::files(path)?,
        (Some(path), false) => payload::file(path)?,
        (None, true) if deploy.rootfs.is_some() => Bytes::new(),
        (None, true) => return Err(Failure::Usage("which files? --code DIR or --code FILE.zip".into())),
        (None, false) => return Err(Failure::Usage("which module? warren fn create NAME FILE.wasm".into())),
    };
    Ok(CreateFunctionRequest {
        name: deploy.name.clone(),
        code,
        task: deploy.task.as_deref().map(task::archive).transpose()?.unwrap_or_default(),
        config: Some(FunctionConfig {
            limits: Some(limits(deploy, FunctionLimits::default())),
            env: variables(&deploy.env)?,
            args: deploy.arg.clone(),
            json_response: deploy.json_response,
            kind: if linux { WireKind::Linux } else { WireKind::Unspecified }.into(),
            runtime: runtime_of(deploy)?.unwrap_or_default(),
            handler: deploy.handler.clone().unwrap_or_default(),
            network: deploy.network.map_or(Network::Unspecified, Reach::on_wire).into(),
            snap_start: deploy.snap_start.map_or(WireSnapStart::Unspecified, SnapStart::on_wire).into(),
        }),
    })
}

/// The runtime's name; an image becomes a runtime named by what is in it.
fn runtime_of(deploy: &Deploy) -> Outcome<Option<String>> {
    let Some(image) = &deploy.rootfs else { return Ok(deploy.runtime.clone()) };
    let failed = |error: warren_image::BuildError| Failure::Usage(error.to_string());
    let digest = warren_image::of_file(image).map_err(failed)?;
    let name = format!("image-{}", digest.get(..16).unwrap_or(&digest));
    let shelf = deploy.place.shelf();
    if shelf.runtime(&name).is_err() {
        runtime::import(&name, image, &shelf)?;
    }
    Ok(Some(name))
}

/// What is not given stays as it is, so the present settings are asked for first; the revision seen then makes
/// sure that nobody changed them in between.
async fn update(client: &Client, deploy: &Deploy, expected: u64) -> Outcome<UpdateFunctionRequest> {
    let request = GetFunctionRequest { name: deploy.name.clone() };
    let function = client.functions().get_function(request).await?.into_inner();
    let latest = function.latest.unwrap_or_default();
    let code = deploy.file.as_ref().or(deploy.code.as_ref());
    let kind = match deploy.kind {
        Some(Kind::Linux) => WireKind::Linux,
        Some(Kind::Wasm) => WireKind::Wasm,
        None => latest.kind(),
    };
    let read = |path: &PathBuf| if kind == WireKind::Linux { task::files(path) } else { payload::file(path) };
    Ok(UpdateFunctionRequest {
        name: deploy.name.clone(),
        code: code.map(read).transpose()?,
        task: deploy.task.as_deref().map(task::archive).transpose()?,
        config: Some(FunctionConfig {
            limits: Some(limits(deploy, latest.limits.unwrap_or_default())),
            env: if deploy.env.is_empty() { latest.env } else { variables(&deploy.env)? },
            args: if deploy.arg.is_empty() { latest.args } else { deploy.arg.clone() },
            json_response: deploy.json_response || latest.json_response,
            kind: kind.into(),
            runtime: runtime_of(deploy)?.unwrap_or(latest.runtime),
            network: deploy.network.map_or(latest.network, |reach| reach.on_wire().into()),
            handler: deploy.handler.clone().unwrap_or(latest.handler),
            snap_start: deploy.snap_start.map_or(latest.snap_start, |when| when.on_wire().into()),
        }),
        expected_revision: if expected == 0 { function.revision } else { expected },
    })
}

fn limits(deploy: &Deploy, old: FunctionLimits) -> FunctionLimits {
    FunctionLimits {
        memory_mib: deploy.memory_mib.unwrap_or(old.memory_mib),
        timeout_ms: deploy.timeout_ms.unwrap_or(old.timeout_ms),
        tmp_mib: deploy.tmp_mib.unwrap_or(old.tmp_mib),
        reserved_concurrency: deploy.reserved_concurrency.or(old.reserved_concurrency),
    }
}

fn variables(pairs: &[String]) -> Outcome<Vec<EnvVar>> {
    let split = |pair: &String| {
        let (name, value) = pair.split_once('=')?;
        Some(EnvVar { name: name.to_owned(), value: value.to_owned() })
    };
    let wrong = |pair: &String| Failure::Usage(format!("--env takes KEY=VALUE, not {pair:?}"));
    pairs.iter().map(|pair| split(pair).ok_or_else(|| wrong(pair))).collect()
}

fn show(function: &Function, json: bool, verb: &str) {
    if json {
        return screen::print_json(&shape::function(function));
    }
    let latest = function.latest.clone().unwrap_or_default();
    screen::print(&format!(
        "{} {verb}: version {}, {} of code",
        latest.name,
        latest.version,
        screen::bytes(latest.code_bytes)
    ));
    if let Some(starts) = snap_start::outcome(&latest) {
        screen::print(&starts);
    }
}

fn list(functions: &[Function], json: bool) {
    if json {
        return screen::print_json(&functions.iter().map(shape::function).collect());
    }
    let rows = functions.iter().map(|function| {
        let latest = function.latest.clone().unwrap_or_default();
        let limits = latest.limits.unwrap_or_default();
        vec![
            latest.name.clone(),
            latest.version.to_string(),
            format!("{} MiB", limits.memory_mib),
            format!("{} ms", limits.timeout_ms),
            screen::bytes(latest.code_bytes),
            digest_of(&latest).chars().take(12).collect(),
        ]
    });
    let header = ["name", "version", "memory", "timeout", "code", "digest"];
    screen::print(&screen::table(&header, &[1, 2, 3, 4], rows.collect()));
}

/// Of what it is made of: its module, or its files.
fn digest_of(version: &FunctionVersion) -> &str {
    if version.kind() == WireKind::Linux { &version.task_digest } else { &version.code_digest }
}

fn details(function: &Function, json: bool) {
    if json {
        return screen::print_json(&shape::function(function));
    }
    let latest = function.latest.clone().unwrap_or_default();
    let limits = latest.limits.unwrap_or_default();
    let line = |name: &str, value: String| format!("{name:<22}{value}\n");
    let mut text = line("name", latest.name.clone());
    text += &line("version", format!("{} (all: {})", latest.version, join(&function.versions)));
    text += &line("revision", function.revision.to_string());
    if latest.kind() == WireKind::Linux {
        text += &line("kind", "linux".into());
        text += &line("runtime", format!("{} {}", latest.runtime, latest.runtime_digest));
        text += &line("handler", latest.handler.clone());
        text += &line("reaches", shape::network(&latest).into());
    } else {
        text += &line("world", latest.world().as_str_name().trim_start_matches("WORLD_").to_lowercase());
    }
    text += &line("code", format!("{} {}", screen::bytes(latest.code_bytes), digest_of(&latest)));
    text += &line("memory", format!("{} MiB", limits.memory_mib));
    text += &line("timeout", format!("{} ms", limits.timeout_ms));
    text += &line("/tmp", format!("{} MiB", limits.tmp_mib));
    let reserved = limits.reserved_concurrency.map_or_else(|| "account's".into(), |count| count.to_string());
    text += &line("concurrency limit", reserved);
    text += &line("SnapStart", snap_start::told(&latest));
    text += &line("answer must be JSON", if latest.json_response { "yes" } else { "no" }.into());
    for variable in &latest.env {
        text += &line("env", format!("{}={}", variable.name, variable.value));
    }
    if !latest.args.is_empty() {
        text += &line("args", latest.args.join(" "));
    }
    if !latest.task_digest.is_empty() {
        text += &line("/var/task", latest.task_digest.clone());
    }
    screen::print(&text);
}

fn join(numbers: &[u64]) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
