//! The demo: real functions on real input, each cold and warm, answers checked, time shown.

mod cases;
mod generate;

use crate::{charts, commands::invoke::call, screen, shape};
use bytes::Bytes;
use cases::{CASES, Case};
use serde_json::json;
use std::path::{Path, PathBuf};
use warren_client::{Client, Failure, Outcome};
use warren_proto::v1::{
    CreateFunctionRequest, FunctionConfig, FunctionLimits, InvokeRequest, InvokeResponse, Timing,
    UpdateFunctionRequest,
};

/// Warm invocations of each function; the table shows their median.
const WARM: usize = 10;

/// Where modules and inputs are.
pub(crate) struct Place {
    functions: PathBuf,
    samples: PathBuf,
}

impl Place {
    /// By default what `cargo xtask build` collects beside the programs.
    pub(crate) fn new(functions: Option<PathBuf>, samples: Option<PathBuf>) -> Outcome<Self> {
        let own = std::env::current_exe().map_err(|error| Failure::io("cannot find this program", error))?;
        let above = own.ancestors().nth(2).map(Path::to_owned).unwrap_or_default();
        let functions = functions.unwrap_or_else(|| above.join("functions"));
        let samples = samples.unwrap_or_else(|| above.join("../../tests/functions/data"));
        if !functions.is_dir() {
            return Err(Failure::local(format!(
                "no functions in {}; cargo xtask build",
                functions.display()
            )));
        }
        Ok(Self { functions, samples })
    }
}

/// What one function showed.
struct Shown {
    name: &'static str,
    input: usize,
    output: usize,
    cold: Timing,
    warm: Timing,
}

/// Deploys and invokes every function; fails on the first wrong answer. `only` names some, or none for all.
pub(crate) async fn run(client: &Client, place: &Place, only: &[String], json: bool) -> Outcome {
    let mut shown = Vec::new();
    for case in CASES.iter().filter(|case| only.is_empty() || only.iter().any(|name| name == case.name)) {
        let module = place.functions.join(format!("{}.wasm", case.module));
        if !module.is_file() {
            return Err(Failure::local(format!("{} was not built; cargo xtask build", module.display())));
        }
        let progress = screen::spinner(format!("{}: deploying", case.name));
        deploy(client, case, &module).await?;
        drop(progress);
        let progress = screen::spinner(format!("{}: invoking", case.name));
        shown.push(one(client, case, place).await?);
        drop(progress);
    }
    if json {
        screen::print(&json!({ "demo": shown.iter().map(Shown::json).collect::<Vec<_>>() }).to_string());
    } else {
        screen::print(&report(&shown));
    }
    Ok(())
}

/// Creates, or updates what an earlier demo created.
async fn deploy(client: &Client, case: &Case, module: &Path) -> Outcome {
    let code = std::fs::read(module)
        .map(Bytes::from)
        .map_err(|error| Failure::io(format!("cannot read {}", module.display()), error))?;
    let config = FunctionConfig {
        limits: Some(FunctionLimits {
            memory_mib: case.memory_mib,
            timeout_ms: 30_000,
            ..FunctionLimits::default()
        }),
        args: case.args.iter().map(ToString::to_string).collect(),
        ..FunctionConfig::default()
    };
    let create = CreateFunctionRequest {
        name: case.name.into(),
        code: code.clone(),
        config: Some(config.clone()),
        ..CreateFunctionRequest::default()
    };
    match client.functions().create_function(create).await {
        Err(status) if status.code() == tonic::Code::AlreadyExists => {
            let update = UpdateFunctionRequest {
                name: case.name.into(),
                code: Some(code),
                config: Some(config),
                ..UpdateFunctionRequest::default()
            };
            client.functions().update_function(update).await?;
        }
        other => drop(other?),
    }
    Ok(())
}

async fn one(client: &Client, case: &Case, place: &Place) -> Outcome<Shown> {
    let input = Bytes::from((case.input)(&place.samples)?);
    let invoke = async || -> Outcome<InvokeResponse> {
        let request =
            InvokeRequest { function: case.name.into(), payload: input.clone(), ..InvokeRequest::default() };
        let answer = call(client, request).await?;
        match (case.check)(&input, &answer.payload) {
            Ok(()) => Ok(answer),
            Err(why) => Err(Failure::Wrong(format!("{}: wrong answer: {why}", case.name))),
        }
    };
    let cold = invoke().await?;
    let output = cold.payload.len();
    let cold = cold.timing.unwrap_or_default();
    if !cold.cold {
        return Err(Failure::Wrong(format!(
            "{}: the first invocation of a new version was not cold",
            case.name
        )));
    }
    let mut warm = Vec::new();
    for _ in 0..WARM {
        warm.push(invoke().await?.timing.unwrap_or_default());
    }
    warm.sort_by_key(|timing| timing.total_us);
    // A cold one among them means that the sandbox died in between.
    if let Some(again) = warm.iter().position(|timing| timing.cold) {
        return Err(Failure::Wrong(format!(
            "{}: invocation {again} after the first was cold again",
            case.name
        )));
    }
    let warm = warm.get(WARM / 2).copied().unwrap_or_default();
    Ok(Shown { name: case.name, input: input.len(), output, cold, warm })
}

impl Shown {
    fn json(&self) -> serde_json::Value {
        json!({
            "function": self.name, "input_bytes": self.input, "output_bytes": self.output,
            "cold": shape::timing(&self.cold), "warm": shape::timing(&self.warm),
        })
    }
}

fn report(shown: &[Shown]) -> String {
    let rows = shown.iter().map(|one| {
        vec![
            one.name.to_owned(),
            screen::bytes(one.input as u64),
            screen::bytes(one.output as u64),
            screen::micros(one.cold.total_us),
            screen::micros(one.warm.total_us),
            screen::micros(one.warm.handler_us),
            "right".to_owned(),
        ]
    });
    let header = ["function", "in", "out", "cold", "warm", "warm handler", "answers"];
    let table = screen::table(&header, &[1, 2, 3, 4, 5], rows.collect());
    let mut parts = vec![format!("\n{table}\n\n{}\n", screen::bold("Where the time went"))];
    for one in shown {
        parts.push(charts::timing(&format!("{} cold", one.name), &one.cold));
        parts.push(charts::timing(&format!("{} warm (median of {WARM})", one.name), &one.warm));
    }
    parts.concat()
}
