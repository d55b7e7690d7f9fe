//! What is written down of a sandbox so that the next agent can adopt it: `DATA/run/<id>.json` beside its socket.
//!
//! No fsync: after a crash of the machine there is nothing left to adopt.

use super::live::About;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use warren_sandbox_plan::name::SandboxName;

/// The record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its facts.
    pub about: About,
    /// Its process, as the jailer named it.
    pub pid: i32,
}

/// The directory of sockets and records.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// Opens or makes it.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        // The longest socket path must fit a `sockaddr_un`.
        let longest = path.as_os_str().len() + warren_sandbox_plan::name::NAME_MAX + "/.sock".len();
        if longest > 107 {
            let message =
                format!("{} is too long a path for Unix sockets; choose a shorter --data", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(Self(path))
    }

    /// The socket of a sandbox.
    #[must_use]
    pub fn socket(&self, id: &SandboxName) -> PathBuf {
        self.0.join(format!("{id}.sock"))
    }

    /// Writes a record whole or not at all.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let path = self.record(&record.about.id);
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec(record)?)?;
        fs::rename(&fresh, &path)
    }

    /// Removes socket and record; what is not there is fine.
    pub fn remove(&self, id: &SandboxName) {
        for path in [self.socket(id), self.record(id), self.record(id).with_extension("json.new")] {
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
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let stem =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
            let Some(name) = stem.and_then(|stem| SandboxName::new(stem).ok()) else { continue };
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(read(&path).filter(|record| record.about.id == name));
            }
            names.push(name);
        }
        names.sort();
        names.dedup();
        Ok((records, names))
    }

    fn record(&self, id: &SandboxName) -> PathBuf {
        self.0.join(format!("{id}.json"))
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
            memory_mib: 128,
            timeout_ms: 3000,
            json_response: false,
            partition: 1,
            epoch: 2,
            created: SystemTime::UNIX_EPOCH,
        };
        Record { about, pid: 7 }
    }

    #[test]
    fn written_read_removed() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(dir.path().to_owned()).unwrap();
        run.write(&record("s1")).unwrap();
        fs::write(run.socket(&record("s1").about.id), "").unwrap();
        fs::write(run.socket(&record("s2").about.id), "").unwrap();
        fs::write(dir.path().join("s3.json"), "{").unwrap();
        fs::copy(dir.path().join("s1.json"), dir.path().join("s4.json")).unwrap();
        let (records, names) = run.read_all().unwrap();
        assert_eq!(records, [record("s1")], "neither the damaged one nor the misnamed one");
        let names: Vec<_> = names.iter().map(SandboxName::as_str).collect();
        assert_eq!(names, ["s1", "s2", "s3", "s4"]);
        for name in names {
            run.remove(&SandboxName::new(name).unwrap());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn long_paths_are_refused_at_start() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RunDir::open(dir.path().join("x".repeat(80))).is_err());
    }
}
