//! Linux functions through the whole path (deploy, jailed microVM, gRPC), on the lab host: every runtime through the same
//! steps. Both are tables; a runtime tells only how it names things.
//!
//! The functions are `vmm/init/tests/functions`: they behave as their event says. Under virtual time (`warren-lab
//! --virtual-time`) the product's time limits are exact and waiting for them costs nothing.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode};
use tonic::Code;
use warren_proto::{error::WireError, reason, v1::InvokeResponse};
use warren_suites::{Expected, Installation, Options, Suite, cases, expect_error, full};

/// A runtime with a function on it.
struct Runtime {
    name: &'static str,
    /// What it runs on.
    image: &'static str,
    /// Its files, a folder of `WARREN_MATRIX`.
    files: &'static str,
    /// How its log lines begin.
    says: &'static str,
    /// The type of an error that the function raises: how it begins.
    error: &'static str,
    /// Of one that its init raises, if it has such a thing.
    init_error: Option<&'static str>,
    /// It goes on after a response was refused as too large.
    survives_refusal: bool,
    /// Programs beside it that see every event.
    extensions: &'static [&'static str],
    /// What it draws differently in each copy of a machine, though its generators had drawn before.
    draws: &'static [&'static str],
}

const SHELL: Runtime = Runtime {
    name: "shell",
    image: "debian-base",
    files: "shell",
    says: "shell",
    error: "ValueError",
    init_error: Some("Runtime.NoInit"),
    survives_refusal: true,
    extensions: &[],
    draws: &[],
};

const PYTHON: Runtime = Runtime {
    name: "python",
    image: "debian-python",
    files: "python",
    says: "python",
    init_error: Some("ValueError"),
    survives_refusal: false,
    draws: &["random", "openssl"],
    ..SHELL
};

const NODE: Runtime = Runtime {
    name: "node",
    image: "debian-node",
    files: "node",
    says: "node",
    error: "TypeError",
    init_error: Some("TypeError"),
    draws: &["uuid", "integer", "openssl"],
    ..SHELL
};

const RUST: Runtime = Runtime {
    name: "rust",
    files: "rust",
    says: "rust",
    error: "&alloc::boxed::Box<dyn core::error::Error",
    init_error: None,
    ..SHELL
};

/// The same, with two extensions of the lambda-extension crate in its root file system.
const EXTENSIONS: Runtime =
    Runtime { name: "extensions", image: "extensions", extensions: &["one", "two"], ..RUST };

/// Which runtimes of the quick form do a step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quick {
    All,
    /// The shell's.
    One,
    None,
}
use Quick::{All, One};

/// A step.
type Step = (&'static str, Quick, for<'a> fn(&'a Deployed<'a>) -> warren_suites::Running<'a>);

macro_rules! steps {
    ($($quick:path: $name:ident),* $(,)?) => {
        &[$((stringify!($name), $quick, |deployed| Box::pin($name(deployed)))),*]
    };
}

/// What every function must do, on one sandbox as long as that lives.
const STEPS: &[Step] = steps![
    All: cold,
    All: warm,
    All: error,
    Quick::None: tmp_is_kept,
    Quick::None: too_large,
    One: exit,
    Quick::None: tmp_has_an_end,
    One: timeout,
];

/// What is deployed anew for each: how init goes, and copies of it.
const INITS: &[Step] = steps![
    One: init_that_exits,
    Quick::None: init_that_raises,
    Quick::None: init_that_takes_too_long,
    Quick::None: copies,
];

/// A function that is deployed.
struct Deployed<'a> {
    warren: &'a Installation,
    runtime: &'a Runtime,
    name: String,
}

impl<'a> Deployed<'a> {
    async fn new(warren: &'a Installation, runtime: &'a Runtime, env: &[&str]) -> Result<Self> {
        let env: Vec<_> = env.iter().flat_map(|pair| ["--env", pair]).collect();
        Self::with(warren, runtime, &env).await
    }

    async fn with(warren: &'a Installation, runtime: &'a Runtime, more: &[&str]) -> Result<Self> {
        let name = warren.name(runtime.name);
        let files = PathBuf::from(std::env::var_os("WARREN_MATRIX").context("WARREN_MATRIX")?);
        let files = files.join(runtime.files).display().to_string();
        let mut words = vec!["fn", "create", &name, "--kind=linux", "--runtime", runtime.image];
        words.extend(["--code", &files, "--handler=app.handler", "--memory-mib=256", "--timeout-ms=30000"]);
        words.extend(more);
        let done = warren.cli(&words).await?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(Self { warren, runtime, name })
    }

    async fn call(&self, event: &Value) -> Result<InvokeResponse, tonic::Status> {
        let request = warren_proto::v1::InvokeRequest {
            function: self.name.clone(),
            payload: event.to_string().into(),
            want_log: true,
            ..Default::default()
        };
        Ok(self.warren.client.invoke().invoke(request).await?.into_inner())
    }

    /// An event that is answered: its answer, as JSON.
    async fn answer(&self, event: Value) -> Result<Value> {
        let answer = self.call(&event).await.map_err(|status| anyhow::anyhow!("{event}: {status:?}"))?;
        serde_json::from_slice(&answer.payload).with_context(|| format!("{event}: {:?}", answer.payload))
    }

    /// An ordinary event, and how many its function has had.
    async fn echo(&self, value: u64, count: u64) -> Result<InvokeResponse> {
        let answer = self.call(&json!({ "value": value })).await?;
        let said: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(said["echo"] == value && said["count"] == count, "not {value} and {count}: {said}");
        ensure!(said["function"] == self.name.as_str() && said["memory"] == 256, "{said}");
        Ok(answer)
    }

    /// An event that fails so: code and reason, and what the function says as AWS Lambda's document has it.
    async fn fails(
        &self,
        event: Value,
        code: Code,
        reason: &'static str,
        kind: &str,
        text: &str,
    ) -> Result<WireError> {
        let error = expect_error(self.call(&event).await, Expected::function(code, reason))?;
        let said = error.said.clone().context("no errorType")?;
        ensure!(said.error_type.starts_with(kind), "{event}: {said:?} is no {kind}");
        ensure!(said.error_message.contains(text), "{event}: {said:?} lacks {text:?}");
        Ok(error)
    }
}

async fn cold(f: &Deployed<'_>) -> Result<()> {
    let answer = f.echo(1, 1).await?;
    ensure!(answer.timing.is_some_and(|timing| timing.cold), "not cold: {answer:?}");
    ensure!(
        answer.report.is_some_and(|report| report.init_us > 0 && report.memory_peak_bytes > 0),
        "no report"
    );
    Ok(())
}

/// A hundred times, ten in the quick form. What the function writes comes before END, what extensions write too.
async fn warm(f: &Deployed<'_>) -> Result<()> {
    for number in 2..if full() { 102 } else { 12 } {
        let answer = f.echo(number, number).await?;
        let log = answer.log_tail.join("\n");
        let id = &answer.request_id;
        let mut lines = vec![format!("{}: {id} ", f.runtime.says)];
        lines.extend(f.runtime.extensions.iter().map(|name| format!("{name}: invoke {id}")));
        let end = log.find(&format!("END RequestId: {id}")).with_context(|| format!("no END: {log}"))?;
        for line in lines {
            ensure!(log.find(&line).is_some_and(|at| at < end), "{line:?} does not come before END: {log}");
        }
        ensure!(answer.timing.is_some_and(|timing| !timing.cold), "event {number} was cold: {log}");
    }
    Ok(())
}

/// The function's own error, which costs no sandbox.
async fn error(f: &Deployed<'_>) -> Result<()> {
    let count = f.answer(json!({ "value": 1 })).await?["count"].as_u64().context("no count")?;
    f.fails(json!({ "do": "fail" }), Code::Unknown, reason::FUNCTION_FAILED, f.runtime.error, "as you wish")
        .await?;
    f.echo(7, count + 2).await.map(drop)
}

/// What is left in `/tmp` is there for the next event.
async fn tmp_is_kept(f: &Deployed<'_>) -> Result<()> {
    for (value, before) in [(7, ""), (8, "7")] {
        let said = f.answer(json!({ "do": "keep", "value": value })).await?;
        ensure!(said == before, "{said} was kept, not {before:?}");
    }
    Ok(())
}

/// 6 MiB may be answered, a little more may not.
async fn too_large(f: &Deployed<'_>) -> Result<()> {
    const MOST: usize = 6 << 20;
    let event = json!({ "do": "large", "bytes": MOST - 2 });
    let answer = f.call(&event).await?;
    ensure!(answer.payload.len() >= MOST - 2, "only {} bytes", answer.payload.len());
    let event = json!({ "do": "large", "bytes": MOST + 100 });
    let kind = "Function.ResponseSizeTooLarge";
    f.fails(event, Code::OutOfRange, reason::RESPONSE_TOO_LARGE, kind, "6291456 bytes").await?;
    let count = f.answer(json!({ "value": 1 })).await?["count"].as_u64();
    ensure!((count == Some(1)) != f.runtime.survives_refusal, "its count is {count:?}");
    Ok(())
}

/// A runtime that ends is named, and the next event finds a new one in the same sandbox; `/tmp` is as it was.
async fn exit(f: &Deployed<'_>) -> Result<()> {
    let event = json!({ "do": "exit" });
    let text = "Runtime exited with error: exit status 3";
    f.fails(event, Code::Unknown, reason::FUNCTION_EXITED, "Runtime.ExitError", text).await?;
    let answer = f.echo(1, 1).await?;
    ensure!(answer.timing.is_some_and(|timing| !timing.cold), "another sandbox answered");
    Ok(())
}

/// The quota of `/tmp` holds; and what is removed can be written again, which one runtime shows, for the disk is the same.
async fn tmp_has_an_end(f: &Deployed<'_>) -> Result<()> {
    for _ in 0..if f.runtime.name == SHELL.name { 2 } else { 1 } {
        let said = f.answer(json!({ "do": "fill" })).await?;
        ensure!(said["why"] == "No space left on device", "{said}");
        let mib = said["bytes"].as_u64().unwrap_or_default() >> 20;
        ensure!((508..=512).contains(&mib), "{mib} MiB of 512 could be written");
    }
    Ok(())
}

/// An event past the function's time ends its sandbox.
async fn timeout(f: &Deployed<'_>) -> Result<()> {
    let event = json!({ "do": "sleep" });
    let text = "Task timed out after 30.00 seconds";
    f.fails(event, Code::DeadlineExceeded, reason::FUNCTION_TIMED_OUT, "Sandbox.Timedout", text).await?;
    f.warren.gone(&f.name).await
}

async fn init_that_exits(f: &Deployed<'_>) -> Result<()> {
    let f = Deployed::new(f.warren, f.runtime, &["INIT=exit"]).await?;
    let text = "Runtime exited with error: exit status 7";
    f.fails(json!({}), Code::Unknown, reason::FUNCTION_EXITED, "Runtime.ExitError", text).await?;
    f.end().await
}

async fn init_that_raises(f: &Deployed<'_>) -> Result<()> {
    let Some(kind) = f.runtime.init_error else { return Ok(()) };
    let f = Deployed::new(f.warren, f.runtime, &["INIT=raise"]).await?;
    f.fails(json!({}), Code::Unknown, reason::FUNCTION_INIT_FAILED, kind, "no init").await?;
    f.end().await
}

/// Ten seconds, then once more inside the event, which has its own thirty.
async fn init_that_takes_too_long(f: &Deployed<'_>) -> Result<()> {
    let f = Deployed::new(f.warren, f.runtime, &["INIT=sleep"]).await?;
    let text = "Task timed out after 30.00 seconds";
    f.fails(json!({}), Code::DeadlineExceeded, reason::FUNCTION_TIMED_OUT, "Sandbox.Timedout", text).await?;
    f.end().await
}

/// Two sandboxes of one snapshot: what no runtime can seed they draw alike, which shows that they are copies; the rest they do not.
async fn copies(f: &Deployed<'_>) -> Result<()> {
    if f.runtime.draws.is_empty() {
        return Ok(());
    }
    let f = Deployed::with(f.warren, f.runtime, &["--snap-start=published", "--env=DRAWS=7"]).await?;
    let event = || json!({ "do": "draw", "for": 5 });
    let (one, other) = tokio::try_join!(f.answer(event()), f.answer(event()))?;
    ensure!(one["own"].is_number() && one["own"] == other["own"], "these are no copies: {one} {other}");
    for draw in f.runtime.draws {
        ensure!(!one[draw].is_null() && one[draw] != other[draw], "{draw} is alike: {one} {other}");
    }
    f.end().await
}

impl Deployed<'_> {
    async fn end(&self) -> Result<()> {
        self.warren.remove(&self.name).await?;
        self.warren.gone(&self.name).await
    }
}

/// Every step of a runtime, in order; each says how long it took of this machine's time.
async fn every(warren: &Installation, runtime: &Runtime) -> Result<()> {
    let f = Deployed::new(warren, runtime, &[]).await?;
    for (name, quick, step) in STEPS.iter().chain(INITS) {
        let quickly = *quick == All || (*quick == One && runtime.name == SHELL.name);
        if quickly || full() {
            let begin = std::time::Instant::now();
            step(&f).await.with_context(|| format!("{}: {name}", runtime.name))?;
            println!("    {}: {name} ({:.1} s)", runtime.name, begin.elapsed().as_secs_f64());
        }
    }
    f.end().await
}

async fn shell_with_curl(warren: &Installation) -> Result<()> {
    every(warren, &SHELL).await
}

async fn python_under_awslambdaric(warren: &Installation) -> Result<()> {
    every(warren, &PYTHON).await
}

async fn rust_under_lambda_runtime(warren: &Installation) -> Result<()> {
    every(warren, &RUST).await
}

async fn node_under_aws_lambda_ric(warren: &Installation) -> Result<()> {
    every(warren, &NODE).await
}

async fn two_extensions(warren: &Installation) -> Result<()> {
    every(warren, &EXTENSIONS).await
}

fn main() -> ExitCode {
    const QUICK: &[warren_suites::Case] = cases![shell_with_curl, python_under_awslambdaric];
    const FULL: &[warren_suites::Case] = cases![
        shell_with_curl,
        python_under_awslambdaric,
        rust_under_lambda_runtime,
        node_under_aws_lambda_ric,
        two_extensions,
    ];
    if std::env::var_os("WARREN_MATRIX").is_none() {
        for case in QUICK {
            println!("warren-skipped: runtimes::{}: no guests here, they run on the lab host", case.name);
        }
        println!("test result: ok. 0 passed; 0 failed; {} ignored; 0 measured", QUICK.len());
        return ExitCode::SUCCESS;
    }
    let options = Options {
        arguments: &["--guests", "/guests"],
        data: Some("/var/lib/matrix".into()),
        ..Options::default()
    };
    Suite { name: "runtimes", options, cases: if full() { FULL } else { QUICK } }.main()
}
