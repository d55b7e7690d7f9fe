//! `warren-policy-tool componentize IN OUT`: see the library.

use anyhow::{Context as _, bail};
use warren_policy_tool::componentize;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, input, output] = arguments.as_slice() else { bail!(USAGE) };
    if command != "componentize" {
        bail!(USAGE);
    }
    let module = std::fs::read(input).with_context(|| format!("cannot read {input}"))?;
    let made = componentize(&module).with_context(|| format!("{input} makes no policy"))?;
    std::fs::write(output, &made.component).with_context(|| format!("cannot write {output}"))?;
    println!("{output}: {:?}, {} bytes", made.interface, made.component.len());
    Ok(())
}

const USAGE: &str = "usage: warren-policy-tool componentize MODULE.wasm COMPONENT.wasm";
