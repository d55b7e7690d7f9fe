//! A guest's first file system: `warren-init` and the modules it loads, in the order of their names.

use crate::{BuildError, debian::files_ending, modules::Module, newc::Archive};
use std::{fs, path::Path};

/// Where init finds modules.
const MODULES: &str = "/lib/warren/modules";

/// The archive.
pub fn build(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, BuildError> {
    let names = modules.iter().enumerate().map(|(at, module)| format!("{at:02}-{}.ko", module.name));
    archive(init, names.zip(modules.iter().map(|module| module.bytes.as_slice())))
}

/// The archive, with modules as they lie in a folder.
pub fn of_folder(init: &[u8], folder: &Path) -> Result<Vec<u8>, BuildError> {
    let mut modules = Vec::new();
    for file in files_ending(folder, "ko")? {
        let bytes = fs::read(&file).map_err(BuildError::io(format!("read {}", file.display())))?;
        modules.push((file.file_name().unwrap_or_default().to_string_lossy().into_owned(), bytes));
    }
    archive(init, modules.iter().map(|(name, bytes)| (name.clone(), bytes.as_slice())))
}

fn archive<'a>(
    init: &[u8],
    modules: impl Iterator<Item = (String, &'a [u8])>,
) -> Result<Vec<u8>, BuildError> {
    let failed = || BuildError::io("write the initrd");
    let mut archive = Archive::new(Vec::new());
    archive.folder(Path::new("/dev")).map_err(failed())?;
    archive.folder(Path::new(MODULES)).map_err(failed())?;
    archive.file(Path::new("/init"), 0o755, init).map_err(failed())?;
    for (name, bytes) in modules {
        archive.file(&Path::new(MODULES).join(name), 0o644, bytes).map_err(failed())?;
    }
    archive.finish().map_err(failed())
}
