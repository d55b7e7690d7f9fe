//! A real S3 API server: moto, from PyPI, as a process of a test on loopback.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use warren_chunks::l3::S3;

/// Pinned: a new release of the server is a change somebody makes on purpose.
const SERVER: &str = "moto[s3,server]==5.2.5";

/// A running one.
pub(crate) struct Moto {
    process: Child,
    address: String,
}

impl Moto {
    pub(crate) fn start() -> Self {
        let mut process = Command::new(environment())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = said
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.split_once("Running on http://").map(|(_, address)| address.trim().to_owned())
            })
            .unwrap();
        // It goes on saying things, and must not block on them.
        std::thread::spawn(move || said.for_each(drop));
        Self { process, address }
    }

    pub(crate) fn make_bucket(&self, name: &str) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let address = &self.address;
        write!(
            stream,
            "PUT /{name} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// How a bucket of it is reached.
    pub(crate) fn bucket(&self, bucket: &str, prefix: &str) -> S3 {
        S3 {
            endpoint: Some(format!("http://{}", self.address)),
            region: "us-east-1".into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
            access_key: "AKIAEXAMPLE".into(),
            secret_key: "example".into(),
            roots: None,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A virtual environment below `target`, made once.
fn environment() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let home = root.join("target/chunks-python");
    let python = home.join("bin/python");
    let mark = home.join(SERVER);
    if !mark.exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let done = Command::new(program).args(arguments).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let place = home.display().to_string();
        run(Path::new("/usr/bin/python3"), &["-m", "venv", "--clear", &place]);
        run(&python, &["-m", "pip", "install", "--quiet", SERVER]);
        std::fs::write(&mark, "").unwrap();
    }
    python
}
