//! A photograph (JPEG or PNG) in, a small PNG out.
//!
//! The longer side gets at most 128 pixels, or what the last argument or `THUMBNAIL_PIXELS` says.

use image::{GenericImageView as _, ImageFormat, ImageReader, Limits, imageops::FilterType};
use std::io::{self, Cursor, Read as _, Write as _};
use std::process::ExitCode;

const DEFAULT_PIXELS: u32 = 128;
const MOST_PIXELS: u32 = 1024;
/// A picture of more pixels than this is refused before its pixels are decoded.
const MOST_SOURCE_SIDE: u32 = 20_000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot make a thumbnail: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let pixels = pixels()?;
    let mut event = Vec::new();
    io::stdin().lock().read_to_end(&mut event)?;

    let mut reader = ImageReader::new(Cursor::new(&event)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MOST_SOURCE_SIDE);
    limits.max_image_height = Some(MOST_SOURCE_SIDE);
    reader.limits(limits);
    let picture = reader.decode()?;
    let (width, height) = picture.dimensions();

    let small = if width.max(height) > pixels {
        picture.resize(pixels, pixels, FilterType::Triangle)
    } else {
        picture
    };
    eprintln!("{width}x{height} became {}x{}", small.width(), small.height());
    let mut png = Cursor::new(Vec::new());
    small.write_to(&mut png, ImageFormat::Png)?;
    io::stdout().lock().write_all(png.get_ref())?;
    Ok(())
}

fn pixels() -> Result<u32, String> {
    let wanted = std::env::args().skip(1).last().or_else(|| std::env::var("THUMBNAIL_PIXELS").ok());
    let Some(text) = wanted else { return Ok(DEFAULT_PIXELS) };
    match text.parse() {
        Ok(pixels @ 1..=MOST_PIXELS) => Ok(pixels),
        _ => Err(format!("{text:?} is not a number of pixels from 1 to {MOST_PIXELS}")),
    }
}
