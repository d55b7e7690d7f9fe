//! Functions and policies as components.

use super::describe::{function_type, instance_functions};
use crate::inspect::{Outer, shorten};
use crate::limits::NAME_CHARS;
use warren_artefact::{CompileError, Purpose, World};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType, ComponentFuncTypeId};
use wasmparser::types::TypesRef;

const CONTEXT: &str =
    "record{request-id:string,function-name:string,function-version:u64,remaining-ns:u64,memory-mib:u32}";

/// What `warren:function/host` offers: the text of vmm/guest/wit/function.wit as [`function_type`] writes it.
const HOST_FUNCTIONS: [(&str, &str); 7] = [
    ("log", "func(string)"),
    ("wall-clock", "func()->u64"),
    ("monotonic-clock", "func()->u64"),
    ("random", "func(u32)->list<u8>"),
    ("env", "func()->list<tuple<string,string>>"),
    ("read-file", "func(string)->result<list<u8>,string>"),
    ("write-file", "func(string,list<u8>)->result<_,string>"),
];

/// The contract of functions and that of policies; the component model's rule for 0.x: equal minor versions fit.
const FUNCTION_VERSION: &str = "0.1";
const POLICY_VERSION: &str = "0.2";

/// The exported interface that makes a policy of each world.
const POLICY_EXPORTS: [(&str, World); 3] = [
    ("warren:policy/packer", World::Packing),
    ("warren:policy/placer", World::Placement),
    ("warren:policy/router", World::Routing),
];

/// Recognises a validated component.
pub(crate) fn recognise(types: TypesRef<'_>, outer: &Outer, purpose: Purpose) -> Result<World, CompileError> {
    match purpose {
        Purpose::Function => function(types, outer),
        Purpose::Policy => policy(types, outer),
    }
}

fn function(types: TypesRef<'_>, outer: &Outer) -> Result<World, CompileError> {
    for import in callable_imports(types, outer) {
        match versionless(import, FUNCTION_VERSION) {
            "warren:function/host" => check_host(types, import)?,
            "warren:function/types" => only_types(types, import)?,
            // A world that `use`s a record imports the record itself by name: a type is nothing to offer.
            _ if is_type(types, import) => {}
            _ => {
                return Err(missing_import(import, "functions import warren:function/host@0.1 only"));
            }
        }
    }
    let handle = format!("func(list<u8>,{CONTEXT})->result<list<u8>,string>");
    for (name, wanted) in [("init", "func()->result<_,string>"), ("handle", handle.as_str())] {
        match types.component_item_for_export(name).map(|item| item.ty) {
            Some(ComponentEntityType::Func(id)) => check_function(types, name, id, wanted)?,
            Some(_) => return Err(wrong_type(name, "it must be a function")),
            None => {
                let hint = "a warren:function component exports init and handle (vmm/guest/wit/function.wit)";
                return Err(CompileError::MissingExport { export: name.into(), hint: hint.into() });
            }
        }
    }
    Ok(World::Function)
}

fn policy(types: TypesRef<'_>, outer: &Outer) -> Result<World, CompileError> {
    for import in callable_imports(types, outer) {
        // A world that uses an interface's types imports that interface; without functions it offers nothing.
        if !import.starts_with("warren:policy/") {
            return Err(missing_import(
                import,
                "policies import nothing: no clock, no randomness, no input or output",
            ));
        }
        only_types(types, import)?;
    }
    let fulfilled: Vec<World> = POLICY_EXPORTS
        .iter()
        .filter(|(interface, _)| {
            outer.exports.iter().any(|export| versionless(export, POLICY_VERSION) == *interface)
        })
        .map(|(_, world)| *world)
        .collect();
    match fulfilled.as_slice() {
        [world] => Ok(*world),
        [] => {
            let hint = "a policy exports warren:policy/packer, placer or router, version 0.2";
            Err(CompileError::MissingExport { export: "warren:policy".into(), hint: hint.into() })
        }
        _ => Err(CompileError::WrongKind {
            detail: "a policy fulfils one world; this component fulfils several".into(),
        }),
    }
}

/// A world that uses a type at its root imports the type itself: that asks nothing of anybody, a resource excepted.
fn callable_imports<'a>(types: TypesRef<'a>, outer: &'a Outer) -> impl Iterator<Item = &'a String> {
    outer.imports.iter().filter(move |import| {
        let ty = types.component_item_for_import(import).map(|item| item.ty);
        match ty {
            Some(ComponentEntityType::Type { referenced, .. }) => {
                matches!(referenced, ComponentAnyTypeId::Resource(_))
            }
            _ => true,
        }
    })
}

fn check_host(types: TypesRef<'_>, import: &str) -> Result<(), CompileError> {
    let Some(functions) = instance_functions(types, import) else {
        return Err(wrong_type(import, "it must be an instance"));
    };
    for (name, id) in functions {
        match HOST_FUNCTIONS.iter().find(|(offered, _)| *offered == name) {
            Some((_, wanted)) => check_function(types, &name, id, wanted)?,
            None => {
                return Err(missing_import(
                    &format!("{import}.{name}"),
                    "warren:function/host has no such function",
                ));
            }
        }
    }
    Ok(())
}

fn only_types(types: TypesRef<'_>, import: &str) -> Result<(), CompileError> {
    match instance_functions(types, import).as_deref() {
        Some([]) => Ok(()),
        Some([(name, _), ..]) => {
            Err(missing_import(&format!("{import}.{name}"), "this interface has types only"))
        }
        None => Err(wrong_type(import, "it must be an instance")),
    }
}

fn is_type(types: TypesRef<'_>, import: &str) -> bool {
    types
        .component_item_for_import(import)
        .is_some_and(|item| matches!(item.ty, ComponentEntityType::Type { .. }))
}

fn check_function(
    types: TypesRef<'_>,
    name: &str,
    id: ComponentFuncTypeId,
    wanted: &str,
) -> Result<(), CompileError> {
    let found = function_type(types, id);
    if found == wanted { Ok(()) } else { Err(wrong_type(name, &format!("it is {found}, must be {wanted}"))) }
}

/// `a:b/c@0.1.7` is `a:b/c` when its version fits 0.1.
fn versionless<'a>(name: &'a str, wanted: &str) -> &'a str {
    match name.split_once('@') {
        Some((interface, version)) if fits(version, wanted) => interface,
        _ => name,
    }
}

fn fits(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn missing_import(import: &str, hint: &str) -> CompileError {
    CompileError::MissingImport { import: shorten(import, NAME_CHARS), hint: hint.into() }
}

fn wrong_type(name: &str, detail: &str) -> CompileError {
    CompileError::WrongType { name: shorten(name, NAME_CHARS), detail: shorten(detail, 600) }
}
