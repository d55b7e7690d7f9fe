//! Zip files of an exact size: what `warren fn create --code` may be given at most, and one byte more. One kind of bytes that cannot
//! be packed, one of bytes that can, for there is a bound on the zip and one on what comes out of it.

use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

/// Most bytes of a function's zip.
const LARGEST_ZIP: usize = 50 << 20;
/// And of the archive that is made of it, in blocks, with one of them before each member and two at the end.
const LARGEST_ARCHIVE: usize = 250 << 20;
const BLOCK: usize = 512;

/// Bytes that fill a zip with this program as `bootstrap` and them as `ballast` up to `size`.
fn ballast(program: &[u8], size: usize) -> Result<Vec<u8>> {
    let around = zip(program, &[], false)?.len();
    let len = size.checked_sub(around).context("that is smaller than its program")?;
    Ok(noise().take(len).collect())
}

/// The same for an archive of `size` bytes, where each stretch comes eight times.
fn ballast_unpacked(program: &[u8], size: usize) -> Result<Vec<u8>> {
    let around = 4 * BLOCK + program.len().next_multiple_of(BLOCK);
    let len = size.checked_sub(around).context("that is smaller than its program")?;
    let mut bytes = Vec::with_capacity(len + 8 * BLOCK);
    let mut noise = noise();
    while bytes.len() < len {
        let stretch: Vec<u8> = noise.by_ref().take(BLOCK).collect();
        bytes.extend(stretch.repeat(8));
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Both as a zip.
fn zip(program: &[u8], ballast: &[u8], packed: bool) -> Result<Vec<u8>> {
    let method = if packed { rawzip::CompressionMethod::DEFLATE } else { rawzip::CompressionMethod::STORE };
    let mut bytes = Vec::new();
    let mut zip = rawzip::ZipArchiveWriter::new(&mut bytes);
    for (name, content) in [("bootstrap", program), ("ballast", ballast)] {
        let options = zip.new_file(name).unix_permissions(0o755).compression_method(method);
        let (mut member, config) = options.start()?;
        if packed {
            let deflated = miniz_oxide::deflate::compress_to_vec(content, 1);
            member.write_all(&deflated)?;
            let mut sums = config.wrap(std::io::sink());
            sums.write_all(content)?;
            let (_, sums) = sums.finish()?;
            member.finish(sums)?;
        } else {
            let mut writer = config.wrap(&mut member);
            writer.write_all(content)?;
            let (_, sums) = writer.finish()?;
            member.finish(sums)?;
        }
    }
    zip.finish()?;
    Ok(bytes)
}

/// The same bytes each time, and nothing about them to find (xorshift).
fn noise() -> impl Iterator<Item = u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten()
}

/// The checksum that a guest will find, by the host's own program.
fn sum(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(bytes)?;
    let said = String::from_utf8(child.wait_with_output()?.stdout)?;
    Ok(said.split_whitespace().next().context("md5sum says nothing")?.to_owned())
}

/// Writes the largest that may be, with the checksum of its ballast, and one a byte over it, of both kinds, into `folder`.
pub(crate) fn largest(folder: &Path, program: &Path) -> Result<()> {
    let program = fs::read(program).with_context(|| program.display().to_string())?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (suffix, more) in [("", 0), ("-and-a-byte", 1)] {
        let plain = ballast(&program, LARGEST_ZIP + more)?;
        let whole = zip(&program, &plain, false)?;
        ensure!(whole.len() == LARGEST_ZIP + more, "a zip of {} bytes", whole.len());
        fs::write(folder.join(format!("zip{suffix}.zip")), whole)?;
        let unpacked = ballast_unpacked(&program, LARGEST_ARCHIVE + more)?;
        let packed = zip(&program, &unpacked, true)?;
        ensure!(packed.len() < LARGEST_ZIP, "a zip of {} bytes is too large itself", packed.len());
        fs::write(folder.join(format!("unpacked{suffix}.zip")), packed)?;
        if more == 0 {
            fs::write(folder.join("zip.sum"), sum(&plain)?)?;
            fs::write(folder.join("unpacked.sum"), sum(&unpacked)?)?;
        }
    }
    Ok(())
}
