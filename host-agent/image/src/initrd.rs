//! A guest's first file system: `warren-init` and the modules it loads, in the order of their names.

use crate::{BuildError, modules::Module, newc::Archive};
use std::path::Path;

/// Where init finds modules.
const MODULES: &str = "/lib/warren/modules";

/// The archive.
pub fn build(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, BuildError> {
    let failed = || BuildError::io("write the initrd");
    let mut archive = Archive::new(Vec::new());
    archive.folder(Path::new("/dev")).map_err(failed())?;
    archive.folder(Path::new(MODULES)).map_err(failed())?;
    archive.file(Path::new("/init"), 0o755, init).map_err(failed())?;
    for (at, module) in modules.iter().enumerate() {
        let path = Path::new(MODULES).join(format!("{at:02}-{}.ko", module.name));
        archive.file(&path, 0o644, &module.bytes).map_err(failed())?;
    }
    archive.finish().map_err(failed())
}
