//! Markdown in (CommonMark with tables, footnotes, task lists and strikethrough), HTML out.

use pulldown_cmark::{Options, Parser, html};
use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut text = String::new();
    if let Err(error) = io::stdin().lock().read_to_string(&mut text) {
        eprintln!("the event is not text: {error}");
        return ExitCode::from(2);
    }
    let extensions = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_STRIKETHROUGH;
    let mut page = String::with_capacity(text.len() * 2);
    html::push_html(&mut page, Parser::new_ext(&text, extensions));
    eprintln!("{} bytes of markdown, {} bytes of HTML", text.len(), page.len());
    match io::stdout().lock().write_all(page.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot answer: {error}");
            ExitCode::FAILURE
        }
    }
}
