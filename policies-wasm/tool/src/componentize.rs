//! Core module in, component out.

use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

/// A component that imports nothing and exports one policy interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Componentized {
    /// Its bytes.
    pub component: Vec<u8>,
    /// What it decides.
    pub interface: Interface,
}

/// The policy interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// `warren:policy/packer`.
    Packer,
    /// `warren:policy/placer`.
    Placer,
    /// `warren:policy/router`.
    Router,
}

/// Why there is no component. Each is the policy author's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ComponentizeError {
    /// Not a module, or one built without the SDK.
    #[error("not a core module with a policy world in it; was it built with warren-policy-sdk?")]
    NotEncodable(#[source] anyhow::Error),
    /// A policy sees no clock, file or network.
    #[error("the policy imports {0}; policies import nothing")]
    Imports(String),
    /// The component exports none of the policy interfaces.
    #[error("the component exports no warren:policy/packer, placer or router of version 0.2.0")]
    NoInterface,
    /// The component cannot be read back.
    #[error("malformed component")]
    Malformed(#[from] wasmparser::BinaryReaderError),
}

/// Makes a component of a core module; a component is only checked.
pub fn componentize(module: &[u8]) -> Result<Componentized, ComponentizeError> {
    let component = if Parser::is_component(module) { module.to_vec() } else { encode(module)? };
    let interface = check(&component)?;
    Ok(Componentized { component, interface })
}

fn encode(module: &[u8]) -> Result<Vec<u8>, ComponentizeError> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(ComponentizeError::NotEncodable)
}

/// Reads the outermost component: no import of any function or instance, and one policy interface among its exports.
/// (Imports of types are the contract's own records, made from nothing.)
fn check(component: &[u8]) -> Result<Interface, ComponentizeError> {
    let mut found = None;
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload? {
            Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let import = import?;
                    if !is_types_only(&import) {
                        return Err(ComponentizeError::Imports(import.name.name.to_owned()));
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    let export = export?;
                    if export.kind == ComponentExternalKind::Instance {
                        found = found.or(interface_of(export.name.name));
                    }
                }
            }
            _ => {}
        }
    }
    found.ok_or(ComponentizeError::NoInterface)
}

/// The one thing a policy may name on the import side: the contract's own types, which hold no function.
fn is_types_only(import: &wasmparser::ComponentImport<'_>) -> bool {
    import.name.name == "warren:policy/types@0.2.0"
}

fn interface_of(name: &str) -> Option<Interface> {
    match name {
        "warren:policy/packer@0.2.0" => Some(Interface::Packer),
        "warren:policy/placer@0.2.0" => Some(Interface::Placer),
        "warren:policy/router@0.2.0" => Some(Interface::Router),
        _ => None,
    }
}
