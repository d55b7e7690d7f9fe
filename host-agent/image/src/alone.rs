//! One at a time, among all processes of a machine: what is made once and kept.

use crate::BuildError;
use std::{
    fs::{self, File},
    path::Path,
};

/// Waits until nobody else, of any process, has this for `path`; until it is dropped. The lock is a file beside it.
pub fn at(path: &Path) -> Result<File, BuildError> {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    let failed = || BuildError::io(format!("lock {}", lock.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed())?;
    }
    let file = File::create(&lock).map_err(failed())?;
    file.lock().map_err(failed())?;
    Ok(file)
}
