//! Component types as text, to compare with a contract and to show to a person.
//!
//! Parameter names are left out: callers pass by position. Text stops growing at `MOST_CHARS`: a small component can
//! describe a type that is exponentially long when written out.

use core::fmt::Write as _;
use wasmparser::component_types::{
    ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId, ComponentValType,
};
use wasmparser::types::TypesRef;

/// Longer texts equal no contract.
const MOST_CHARS: usize = 400;

/// `func(a,b)->c`.
#[must_use]
pub fn function_type(types: TypesRef<'_>, id: ComponentFuncTypeId) -> String {
    let function = &types[id];
    let mut text = String::from(if function.async_ { "async func(" } else { "func(" });
    list(types, function.params.iter().map(|(_, ty)| *ty), &mut text);
    text.push(')');
    if let Some(result) = function.result {
        text.push_str("->");
        value(types, result, &mut text);
    }
    text
}

/// The functions of an imported instance; `None` if the import is no instance. Resources and nested things count as
/// functions nobody offers.
#[must_use]
pub fn instance_functions(types: TypesRef<'_>, import: &str) -> Option<Vec<(String, ComponentFuncTypeId)>> {
    let ComponentEntityType::Instance(id) = types.component_item_for_import(import)?.ty else { return None };
    let mut functions = Vec::new();
    for (name, item) in &types[id].exports {
        match item.ty {
            ComponentEntityType::Func(id) => functions.push((name.clone(), id)),
            ComponentEntityType::Type { .. } => {}
            _ => return None,
        }
    }
    Some(functions)
}

fn list(types: TypesRef<'_>, items: impl Iterator<Item = ComponentValType>, text: &mut String) {
    for (index, item) in items.enumerate() {
        if text.len() > MOST_CHARS {
            break;
        }
        if index > 0 {
            text.push(',');
        }
        value(types, item, text);
    }
}

fn value(types: TypesRef<'_>, ty: ComponentValType, text: &mut String) {
    // Every level of recursion adds text first, so the bound on text bounds the recursion too.
    if text.len() > MOST_CHARS {
        text.push('…');
        return;
    }
    let id = match ty {
        ComponentValType::Primitive(primitive) => {
            // Writing to a String does not fail.
            let _ = write!(text, "{primitive}");
            return;
        }
        ComponentValType::Type(id) => id,
    };
    match &types[id] {
        ComponentDefinedType::Primitive(primitive) => {
            let _ = write!(text, "{primitive}");
        }
        ComponentDefinedType::List { element, .. } => {
            text.push_str("list<");
            value(types, *element, text);
            text.push('>');
        }
        ComponentDefinedType::Tuple(tuple) => {
            text.push_str("tuple<");
            list(types, tuple.types.iter().copied(), text);
            text.push('>');
        }
        ComponentDefinedType::Record(record) => {
            text.push_str("record{");
            for (index, (name, ty)) in record.fields.iter().enumerate() {
                if text.len() > MOST_CHARS {
                    break;
                }
                let _ = write!(text, "{}{name}:", if index > 0 { "," } else { "" });
                value(types, *ty, text);
            }
            text.push('}');
        }
        ComponentDefinedType::Option { ty, .. } => {
            text.push_str("option<");
            value(types, *ty, text);
            text.push('>');
        }
        ComponentDefinedType::Result { ok, err, .. } => {
            text.push_str("result<");
            optional(types, *ok, text);
            text.push(',');
            optional(types, *err, text);
            text.push('>');
        }
        // No contract of ours has any other kind, so their insides do not matter.
        ComponentDefinedType::Variant(_) => text.push_str("variant"),
        ComponentDefinedType::Enum(_) => text.push_str("enum"),
        ComponentDefinedType::Flags(_) => text.push_str("flags"),
        _ => text.push_str("another type"),
    }
}

fn optional(types: TypesRef<'_>, ty: Option<ComponentValType>, text: &mut String) {
    match ty {
        Some(ty) => value(types, ty, text),
        None => text.push('_'),
    }
}
