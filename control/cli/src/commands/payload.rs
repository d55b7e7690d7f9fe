//! Bytes from a command line: `JSON`, `@file`, `-`.

use bytes::Bytes;
use std::{io::Read as _, path::Path};
use warren_client::{Failure, Outcome};

/// Reads what `--payload` names.
pub(crate) fn read(argument: &str) -> Outcome<Bytes> {
    match argument {
        "-" => {
            let mut bytes = Vec::new();
            let read = std::io::stdin().lock().read_to_end(&mut bytes);
            read.map_err(|error| Failure::io("cannot read standard input", error))?;
            Ok(bytes.into())
        }
        text => match text.strip_prefix('@') {
            Some(path) => file(Path::new(path)),
            None => Ok(text.as_bytes().to_vec().into()),
        },
    }
}

/// Reads a file that a person named.
pub(crate) fn file(path: &Path) -> Outcome<Bytes> {
    std::fs::read(path)
        .map(Bytes::from)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))
}
