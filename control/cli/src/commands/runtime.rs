//! `warren runtime`: what Linux functions run on, made on this machine.

use crate::screen;
use serde_json::json;
use std::{
    io::Write as _,
    path::{Path, PathBuf},
};
use warren_client::{Failure, Outcome};
use warren_image::{
    BuildError, Shelf,
    debian::Series,
    kernel,
    recipe::{EPOCH, RECIPES, Recipe},
    runtime, scratch,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Make a runtime's root file system from Debian packages; one that is there and of the same inputs is kept.
    #[command(after_help = build_help())]
    Build {
        /// debian-base, debian-python or debian-node.
        name: String,
        /// Make it again, with the packages the archive has now.
        #[arg(long)]
        fresh: bool,
        /// Where packages come from, for instance a day of `https://snapshot.debian.org` [default: Debian's own].
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Make a kernel with its initrd from Debian's stock cloud kernel.
    #[command(
        after_help = "Examples:\n  sudo warren runtime kernel\n  sudo warren runtime kernel 6.12 --name next"
    )]
    Kernel {
        /// 6.1 or 6.12.
        #[arg(default_value = "6.1")]
        series: String,
        /// Its name [default: the series].
        #[arg(long)]
        name: Option<String>,
        /// The program that becomes the guest's first process [default: warren-init beside this program].
        #[arg(long, value_name = "FILE")]
        init: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// Take an ext4 or EROFS image made elsewhere as a runtime.
    #[command(after_help = "Examples:\n  sudo warren runtime import mine root.ext4")]
    Import {
        /// The runtime's name.
        name: String,
        /// The image, raw.
        image: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// List runtimes and kernels.
    #[command(
        after_help = "Examples:\n  warren runtime ls\n  warren runtime ls --json | jq '.runtimes[].digest'"
    )]
    Ls {
        #[command(flatten)]
        place: Place,
    },
}

fn build_help() -> String {
    let runtimes = RECIPES.map(|recipe| format!("  {:<15}{}\n", recipe.name, recipe.about)).concat();
    format!(
        "Runtimes:\n{runtimes}\nExamples:\n  sudo warren runtime build debian-python\n  \
         sudo SOURCE_DATE_EPOCH=1700000000 warren runtime build debian-base --fresh\n\n\
         Needs mmdebstrap and e2fsprogs, debian-python also python3-pip, debian-node also npm."
    )
}

/// Where it all lies.
#[derive(clap::Args, Clone)]
pub(crate) struct Place {
    /// Where runtimes, kernels and scratch disks are kept; what `warren up --guests` was given [default: /var/lib/warren
    /// for root, where every `warren up` of this machine finds them, else ~/.local/share/warren].
    #[arg(long, value_name = "DIR", env = "WARREN_GUESTS_DIR")]
    pub(crate) guests: Option<PathBuf>,
}

impl Place {
    /// The folder.
    pub(crate) fn shelf(&self) -> Shelf {
        let root = rustix::process::geteuid().is_root();
        let default = || Shelf::new(crate::up::default_data(root)).beside(Shelf::MACHINE);
        self.guests.as_ref().map_or_else(default, Shelf::new)
    }
}

/// Runs one. It is long work of other programs, so nothing else of this process waits for it.
pub(crate) async fn run(command: Command, json: bool) -> Outcome {
    tokio::task::spawn_blocking(move || blocking(&command, json))
        .await
        .unwrap_or_else(|_| Err(Failure::local("the work ended unexpectedly")))
}

fn blocking(command: &Command, json: bool) -> Outcome {
    match command {
        Command::Build { name, fresh, mirror, place } => {
            let recipe = Recipe::named(name).ok_or_else(|| unknown(name))?;
            let options = runtime::Options { mirror: mirror.clone(), epoch: epoch()?, fresh: *fresh };
            let shelf = place.shelf();
            let steps = Steps::new(&format!("{name}: "));
            let built =
                runtime::build(&recipe, &options, &shelf, &|step| steps.show(step)).map_err(failure)?;
            scratch::build(&shelf, options.epoch).map_err(failure)?;
            drop(steps);
            let verb = if built.kept { "is there already" } else { "made" };
            show_runtime(&built.manifest, verb, &shelf, json);
        }
        Command::Kernel { series, name, init, place } => {
            let known = Series::from_name(series)
                .ok_or_else(|| Failure::Usage(format!("no kernel {series:?}: 6.1 or 6.12")))?;
            let name = name.as_deref().unwrap_or(series);
            let init = init.clone().or_else(beside_init);
            let init = init.ok_or_else(|| {
                Failure::Usage("warren-init is not beside this program; build it with `cargo xtask build`, or give --init".into())
            })?;
            let shelf = place.shelf();
            let steps = Steps::new(&format!("kernel {name}: "));
            let made =
                kernel::build(known, name, &init, &shelf, &|step| steps.show(step)).map_err(failure)?;
            scratch::build(&shelf, epoch()?).map_err(failure)?;
            drop(steps);
            if json {
                screen::print_json(&json!(made));
            } else {
                let count = made.modules.len();
                screen::print(&format!(
                    "kernel {name} made: {}, {count} modules in its initrd",
                    made.package
                ));
            }
        }
        Command::Import { name, image, place } => {
            let made = import(name, image, &place.shelf())?;
            show_runtime(&made, "imported", &place.shelf(), json);
        }
        Command::Ls { place } => list(&place.shelf(), json),
    }
    Ok(())
}

/// Takes an image as a runtime, and makes the scratch disks it needs.
pub(crate) fn import(name: &str, image: &Path, shelf: &Shelf) -> Outcome<warren_image::RuntimeManifest> {
    let made = runtime::import(name, image, shelf).map_err(|error| match error {
        // The image is the caller's.
        BuildError::Malformed { .. } => Failure::Usage(error.to_string()),
        BuildError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::Usage(format!("{}: {source}", image.display()))
        }
        other => failure(other),
    })?;
    scratch::build(shelf, EPOCH).map_err(failure)?;
    Ok(made)
}

fn show_runtime(manifest: &warren_image::RuntimeManifest, verb: &str, shelf: &Shelf, json: bool) {
    if json {
        return screen::print_json(&json!(manifest));
    }
    screen::print(&format!(
        "{} {verb}: {} in {}, {} packages, digest {}",
        manifest.name,
        screen::bytes(manifest.bytes),
        shelf.root().display(),
        manifest.packages.len() + manifest.extra.len(),
        manifest.digest.get(..16).unwrap_or(&manifest.digest)
    ));
}

fn list(shelf: &Shelf, json: bool) {
    let runtimes: Vec<_> = shelf.runtimes().into_iter().map(|item| item.manifest).collect();
    let kernels: Vec<_> = shelf.kernels().into_iter().map(|item| item.manifest).collect();
    if json {
        return screen::print_json(&json!({ "runtimes": runtimes, "kernels": kernels }));
    }
    if runtimes.len() + kernels.len() == 0 {
        let places: Vec<_> = shelf.roots().map(|root| root.display().to_string()).collect();
        screen::tell(&format!(
            "nothing is made yet in {}; `warren runtime kernel` and `warren runtime build debian-python` do it, as root",
            places.join(" and ")
        ));
    }
    let short = |digest: &str| digest.get(..16).unwrap_or(digest).to_owned();
    let rows = runtimes.iter().map(|one| {
        let what = format!("{} packages", one.packages.len() + one.extra.len());
        vec!["runtime".into(), one.name.clone(), screen::bytes(one.bytes), what, short(&one.digest)]
    });
    let kernels = kernels.iter().map(|one| {
        vec!["kernel".into(), one.name.clone(), String::new(), one.package.clone(), short(&one.image_digest)]
    });
    let header = ["kind", "name", "size", "made of", "digest"];
    screen::print(&screen::table(&header, &[2], rows.chain(kernels).collect()));
}

fn unknown(name: &str) -> Failure {
    let names: Vec<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
    Failure::Usage(format!("no runtime {name:?} can be made: there are {}", names.join(", ")))
}

fn epoch() -> Outcome<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().map_err(|_| Failure::Usage(format!("SOURCE_DATE_EPOCH is {text:?}, not seconds")))
        }
        Err(_) => Ok(EPOCH),
    }
}

fn beside_init() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    own.parent().map(|directory| directory.join("warren-init")).filter(|path| path.is_file())
}

/// An error of a build: what a person must do about most of them stands in its text.
fn failure(error: BuildError) -> Failure {
    match error {
        BuildError::NotRoot => Failure::Unprepared(error.to_string()),
        BuildError::Name(_) | BuildError::MissingTool { .. } => Failure::Usage(error.to_string()),
        BuildError::Io { what, source } => Failure::io(what, source),
        other => Failure::local(other.to_string()),
    }
}

/// What is being done: a spinner on a terminal, lines elsewhere, so that a log shows where long work is.
struct Steps {
    what: String,
    shown: std::sync::Mutex<Option<screen::Progress>>,
}

impl Steps {
    fn new(what: &str) -> Self {
        Self { what: what.to_owned(), shown: std::sync::Mutex::new(None) }
    }

    fn show(&self, step: &str) {
        let text = format!("{}{step}", self.what);
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            let mut shown = self.shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *shown = None;
            *shown = Some(screen::spinner(text));
        } else {
            // A closed standard error must not end the work.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
}
