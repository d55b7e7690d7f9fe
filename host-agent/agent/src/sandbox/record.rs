//! What is written down of a sandbox so that the next agent can adopt it: `DATA/run/<jail>.json` beside its socket.
//!
//! No fsync: after a crash of the machine there is nothing left to adopt.

use super::live::{About, Origin};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};
use warren_sandbox_plan::name::SandboxName;

/// Most bytes of a path in a `sockaddr_un`, unix(7).
const LONGEST_ADDRESS: usize = 107;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its facts.
    pub about: About,
    /// Its process, as the jailer named it.
    pub pid: i32,
    /// Whether it began from a snapshot; agents that made none say nothing.
    #[serde(default)]
    pub restored: bool,
    /// Whether the pager brings its memory; agents that had none say nothing.
    #[serde(default)]
    pub paged: bool,
    /// Its jail's name, if that is not its id: it was a zygote's before.
    #[serde(default)]
    pub jail: Option<SandboxName>,
}

impl Record {
    /// From what it began.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        match (self.restored, self.paged) {
            (_, true) => Origin::Paged,
            (true, false) => Origin::Restored,
            (false, false) => Origin::Booted,
        }
    }

    /// What its jail, its socket and this record are called.
    #[must_use]
    pub fn jail(&self) -> &SandboxName {
        self.jail.as_ref().unwrap_or(&self.about.id)
    }
}

/// The directory of sockets and records.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The same directory, by a name that is short enough for a socket's address.
    short: PathBuf,
    /// What the short name may lead through.
    _open: Arc<File>,
}

impl RunDir {
    /// Opens or makes it.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        let open = Arc::new(File::open(&path)?);
        // The longest socket path must fit a `sockaddr_un`; a home directory's name can be any length.
        let longest = path.as_os_str().len() + warren_sandbox_plan::name::NAME_MAX + "/.sock".len();
        let short = if longest > LONGEST_ADDRESS {
            PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()))
        } else {
            path.clone()
        };
        Ok(Self { path, short, _open: open })
    }

    /// The directory itself; nameless files of sandboxes lie in its file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket of a sandbox.
    #[must_use]
    pub fn socket(&self, id: &SandboxName) -> PathBuf {
        self.short.join(format!("{id}.sock"))
    }

    /// Where the pager is reached. No sandbox can be called so.
    #[must_use]
    pub fn pager(&self) -> PathBuf {
        self.short.join("_pager.sock")
    }

    /// Where a Linux sandbox's [mark](super::mark) is.
    #[must_use]
    pub fn mark(&self, id: &SandboxName) -> PathBuf {
        self.path.join(format!("{id}.mark"))
    }

    /// Writes a record whole or not at all.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.record(record.jail());
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        fs::rename(&fresh, &path)
    }

    /// Removes socket and record; what is not there is fine.
    pub fn remove(&self, id: &SandboxName) {
        let record = self.record(id);
        for path in [self.socket(id), record.with_extension("json.new"), record, self.mark(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "a sandbox's file was not removed");
                }
                _ => {}
            }
        }
    }

    /// Every readable record, and the names of all files that belong to a sandbox.
    pub fn read_all(&self) -> io::Result<(Vec<Record>, Vec<SandboxName>)> {
        let (mut records, mut names) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let stem =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
            let Some(name) = stem.and_then(|stem| SandboxName::new(stem).ok()) else { continue };
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(read(&path).filter(|record| *record.jail() == name));
            }
            names.push(name);
        }
        names.sort();
        names.dedup();
        Ok((records, names))
    }

    fn record(&self, id: &SandboxName) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }
}

fn read(path: &Path) -> Option<Record> {
    let bytes = fs::read(path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a sandbox's record does not read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn record(id: &str) -> Record {
        let about = About {
            id: SandboxName::new(id).unwrap(),
            function: "hello".into(),
            version: 3,
            guest: crate::sandbox::live::Guest::Wasm,
            memory_mib: 128,
            timeout_ms: 3000,
            json_response: false,
            partition: 1,
            epoch: 2,
            created: SystemTime::UNIX_EPOCH,
        };
        Record { about, pid: 7, restored: false, paged: false, jail: None }
    }

    #[test]
    fn written_read_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path().to_owned()).unwrap();
        run.write(&record("s1")).unwrap();
        fs::write(run.socket(&record("s1").about.id), "").unwrap();
        fs::write(run.socket(&record("s2").about.id), "").unwrap();
        fs::write(dir.path().join("s3.json"), "{").unwrap();
        let adopted = Record { jail: Some(SandboxName::new("zygote-1").unwrap()), ..record("s5") };
        run.write(&adopted).unwrap();
        fs::copy(dir.path().join("s1.json"), dir.path().join("s4.json")).unwrap();
        let (mut records, names) = run.read_all().unwrap();
        records.sort_by(|a, b| a.jail().cmp(b.jail()));
        assert_eq!(records, [record("s1"), adopted], "neither the damaged one nor the misnamed one");
        let names: Vec<_> = names.iter().map(SandboxName::as_str).collect();
        assert_eq!(names, ["s1", "s2", "s3", "s4", "zygote-1"]);
        for name in names {
            run.remove(&SandboxName::new(name).unwrap());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_long_path_has_sockets_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200));
        let run = RunDir::open(path.clone()).unwrap();
        let id = SandboxName::new("a".repeat(warren_sandbox_plan::name::NAME_MAX)).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(run.socket(&id)).unwrap();
        assert!(path.join(format!("{id}.sock")).exists());
        std::os::unix::net::UnixStream::connect(run.socket(&id)).unwrap();
        run.remove(&id);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }
}
