//! Zip files of an exact size, of bytes that cannot be packed: what `warren fn create --code` may be given at most, and one
//! byte more.

use anyhow::{Context as _, Result, ensure};
use std::{fs, io::Write as _, path::Path};

/// A zip with this program as `bootstrap` and a member `ballast` that fills it up to `size` bytes.
pub(crate) fn of_size(program: &[u8], size: usize) -> Result<Vec<u8>> {
    let around = stored(program, &[])?.len();
    let ballast = size.checked_sub(around).context("that is smaller than its program")?;
    let zip = stored(program, &noise(ballast))?;
    ensure!(zip.len() == size, "a zip of {} bytes, not {size}", zip.len());
    Ok(zip)
}

/// Both members as they are.
fn stored(program: &[u8], ballast: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut zip = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, content) in [("bootstrap", program), ("ballast", ballast)] {
        let (mut member, config) = zip.new_file(name).unix_permissions(0o755).start()?;
        let mut writer = config.wrap(&mut member);
        writer.write_all(content)?;
        let (_, sums) = writer.finish()?;
        member.finish(sums)?;
    }
    zip.finish()?;
    Ok(bytes)
}

/// The same bytes each time, and nothing about them to find (xorshift).
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(len).collect()
}

/// Writes the largest that may be, and one a byte over it, into `folder`.
pub(crate) fn largest(folder: &Path, program: &Path, limit: usize) -> Result<()> {
    let program = fs::read(program).with_context(|| program.display().to_string())?;
    fs::create_dir_all(folder)?;
    for (name, size) in [("largest.zip", limit), ("larger.zip", limit + 1)] {
        fs::write(folder.join(name), of_size(&program, size)?)?;
    }
    Ok(())
}
