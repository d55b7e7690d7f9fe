//! What comes from the package registries: installed once below `target/clients`, said aloud, skipped only where that fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Versions as `warren runtime build` has them.
const WHEELS: [&str; 3] = ["awslambdaric==4.2.2", "simplejson==4.3.0", "snapshot-restore-py==1.0.0"];
const NODE: &str = "aws-lambda-ric@3.3.0";

/// The fixtures' folder.
pub fn functions() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from).join("tests/functions")
}

/// A Python with awslambdaric.
pub fn python() -> Option<&'static Path> {
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let home = clients("python");
        installed(&home, &WHEELS.join(" "), |home| {
            run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(home))?;
            run(Command::new(home.join("bin/python3")).args(["-m", "pip", "install", "--quiet"]).args(WHEELS))
        })
    });
    home.as_deref()
}

/// What a runtime's image has beside its client, where its sources are.
pub fn runtimes() -> PathBuf {
    functions().join("../../../../host-agent/image/runtimes")
}

/// A folder that is as a Node.js image's `/var/runtime`, `main.cjs` and aws-lambda-ric in `node_modules`. That builds a library of its own, which takes a C++ compiler, cmake,
/// autoconf, automake and libtool, and a minute.
pub fn node() -> Option<&'static Path> {
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        let home = clients("node");
        installed(&home, NODE, |home| {
            fs::create_dir_all(home).map_err(|error| error.to_string())?;
            run(Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--prefix"])
                .arg(home)
                .arg(NODE))
        })?;
        let ours = home.join("node_modules/aws-lambda-ric/dist/renew.node");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(ours);
        let put = run(compiler.arg(runtimes().join("renew.c"))).and_then(|()| {
            let copied = fs::copy(runtimes().join("node.cjs"), home.join("main.cjs"));
            copied.map(|_| home).map_err(|error| error.to_string())
        });
        put.map_or_else(|why| skip("node", &why), Some)
    });
    home.as_deref()
}

/// Where the Rust functions are, built.
pub fn rust() -> Option<&'static Path> {
    static HOME: OnceLock<Option<PathBuf>> = OnceLock::new();
    let home = HOME.get_or_init(|| {
        println!("    building {}", functions().display());
        let mut cargo = Command::new("cargo");
        // Not what a surrounding cargo has set for its own workspace.
        cargo.env_remove("CARGO_TARGET_DIR").args(["build", "--locked", "--quiet"]);
        match run(cargo.current_dir(functions())) {
            Ok(()) => Some(functions().join("target/x86_64-unknown-linux-musl/debug")),
            Err(why) => skip("rust", &why),
        }
    });
    home.as_deref()
}

/// The words that run a handler under awslambdaric, as its image's bootstrap has them.
pub fn python_words(handler: &str) -> Option<[String; 3]> {
    let program = python()?.join("bin/python3");
    let main = runtimes().join("python.py");
    Some([program.to_str()?.to_owned(), main.to_str()?.to_owned(), handler.to_owned()])
}

/// The same for aws-lambda-ric.
pub fn node_words(handler: &str) -> Option<[String; 5]> {
    let home = node()?;
    let [main, client] =
        ["main.cjs", "node_modules/aws-lambda-ric/bin/index.mjs"].map(|file| home.join(file));
    let (main, client) = (main.to_str()?.to_owned(), client.to_str()?.to_owned());
    Some(["/usr/bin/node".to_owned(), "--require".to_owned(), main, client, handler.to_owned()])
}

fn clients(name: &str) -> PathBuf {
    functions().join("../../../../target/clients").join(name)
}

/// Does it unless it was done with the same words; a mark that is written last says so.
fn installed(home: &Path, what: &str, install: impl FnOnce(&Path) -> Result<(), String>) -> Option<PathBuf> {
    let mark = home.join("installed");
    if fs::read_to_string(&mark).is_ok_and(|done| done == what) {
        return Some(home.to_owned());
    }
    println!("    installing {what} below {}", home.display());
    let done = install(home).and_then(|()| fs::write(&mark, what).map_err(|error| error.to_string()));
    match done {
        Ok(()) => Some(home.to_owned()),
        Err(why) => skip(what, &why),
    }
}

fn skip(what: &str, why: &str) -> Option<PathBuf> {
    let line = format!("warren-skipped: init::clients::{what}: {}\n", why.replace('\n', "; "));
    rustix::io::write(std::io::stdout(), line.as_bytes()).unwrap();
    None
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<_> = said.lines().rev().take(3).collect();
    Err(format!("{command:?} ended with {}: {}", output.status, last.join(" | ")))
}
