//! What each part of a binary costs.

use super::budget::{Budget, within};
use super::{Kind, invalid, malformed};
use crate::limits;
use warren_artefact::CompileError;
use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentImportSectionReader, ElementItems, ElementSectionReader,
    Encoding, FuncValidator, FunctionBody, ImportSectionReader, MemorySectionReader, Operator, Payload,
    TableSectionReader, TypeRef, TypeSectionReader, WasmModuleResources,
};

/// Charges a payload to the budget. Counts come from section headers and are not trusted beyond being too large;
/// whatever is iterated here is bounded by the input's length.
pub(super) fn spend(budget: &mut Budget, payload: &Payload<'_>) -> Result<(), CompileError> {
    let items = u64::from;
    match payload {
        Payload::Version { encoding: Encoding::Module, .. } => budget.enter(Kind::Module),
        Payload::Version { encoding: Encoding::Component, .. } => budget.enter(Kind::Component),

        Payload::TypeSection(section) => types(budget, section.clone()),
        Payload::ImportSection(section) => imports(budget, section.clone()),
        Payload::FunctionSection(section) => {
            budget.spend("functions", items(section.count()), limits::FUNCTIONS)
        }
        Payload::TableSection(section) => tables(budget, section.clone()),
        Payload::MemorySection(section) => memories(budget, section.clone()),
        Payload::GlobalSection(section) => budget.spend("globals", items(section.count()), limits::GLOBALS),
        Payload::ExportSection(section) => budget.spend("exports", items(section.count()), limits::EXPORTS),
        Payload::ElementSection(section) => elements(budget, section.clone()),
        Payload::DataSection(section) => {
            budget.spend("data segments", items(section.count()), limits::DATA_SEGMENTS)
        }
        Payload::CodeSectionEntry(body) => {
            within("bytes of one function", body.range().len() as u64, limits::BODY_BYTES)
        }

        Payload::ComponentImportSection(section) => component_imports(budget, section.clone()),
        Payload::ComponentExportSection(section) => {
            budget.spend("component exports", items(section.count()), limits::COMPONENT_ITEMS)?;
            if let Some(outer) = budget.outer_mut() {
                for export in section.clone() {
                    outer.exports.push(export.map_err(|error| malformed(&error))?.name.name.to_owned());
                }
            }
            Ok(())
        }
        Payload::InstanceSection(section) => component_items(budget, "core instances", section.count()),
        Payload::CoreTypeSection(section) => {
            component_items(budget, "core types of components", section.count())
        }
        Payload::ComponentInstanceSection(section) => component_items(budget, "instances", section.count()),
        Payload::ComponentAliasSection(section) => component_items(budget, "aliases", section.count()),
        Payload::ComponentTypeSection(section) => component_items(budget, "component types", section.count()),
        Payload::ComponentCanonicalSection(section) => {
            component_items(budget, "canonical functions", section.count())?;
            section
                .clone()
                .into_iter()
                .try_for_each(|function| strings_are_utf8(&function.map_err(|error| malformed(&error))?))
        }
        _ => Ok(()),
    }
}

/// Other encodings are decoded by whoever runs the component, into more memory than they came from.
fn strings_are_utf8(function: &CanonicalFunction) -> Result<(), CompileError> {
    let (CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. }) = function
    else {
        return Ok(());
    };
    let other =
        |option: &CanonicalOption| matches!(option, CanonicalOption::UTF16 | CanonicalOption::CompactUTF16);
    if options.iter().any(other) {
        let detail = "strings of a component must be UTF-8 (canonical option string-encoding)".into();
        return Err(CompileError::Invalid { detail });
    }
    Ok(())
}

/// Validates one function operator by operator, watching what validation alone does not bound.
pub(super) fn check_body<T: WasmModuleResources>(
    budget: &mut Budget,
    checker: &mut FuncValidator<T>,
    body: &FunctionBody<'_>,
) -> Result<(), CompileError> {
    let mut reader = body.get_binary_reader();
    checker.read_locals(&mut reader).map_err(|error| invalid(&error))?;
    let locals = u64::from(checker.len_locals());
    within("locals of one function", locals, limits::LOCALS)?;
    budget.spend("locals", locals, limits::ALL_LOCALS)?;
    let (mut branches, mut targets) = (0_u64, 0_u64);
    let mut operators = body.get_operators_reader().map_err(|error| malformed(&error))?;
    while !operators.eof() {
        let (operator, offset) = operators.read_with_offset().map_err(|error| invalid(&error))?;
        match &operator {
            Operator::BrTable { targets: table } => targets += u64::from(table.len()),
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::BrIf { .. } => {
                branches += 1;
            }
            _ => {}
        }
        within("branches of one function", branches, limits::BRANCHES)?;
        within("branch targets of one function", targets, limits::BRANCH_TARGETS)?;
        within("branches times locals of one function", branches * locals, limits::JOINED_LOCALS)?;
        checker.op(offset, &operator).map_err(|error| invalid(&error))?;
        within("nested blocks", u64::from(checker.control_stack_height()), limits::NESTING)?;
    }
    budget.spend("branches times locals", branches * locals, limits::ALL_JOINED_LOCALS)?;
    operators.finish().map_err(|error| invalid(&error))
}

fn types(budget: &mut Budget, section: TypeSectionReader<'_>) -> Result<(), CompileError> {
    budget.spend("types", u64::from(section.count()), limits::TYPES)?;
    for group in section {
        let group = group.map_err(|error| malformed(&error))?;
        for ty in group.types() {
            budget.spend("types in groups", 1, limits::TYPES)?;
            if let wasmparser::CompositeInnerType::Func(function) = &ty.composite_type.inner {
                within("parameters of a function type", function.params().len() as u64, limits::PARAMS)?;
                within("results of a function type", function.results().len() as u64, limits::RESULTS)?;
            }
        }
    }
    Ok(())
}

fn imports(budget: &mut Budget, section: ImportSectionReader<'_>) -> Result<(), CompileError> {
    for import in section.into_imports() {
        let import = import.map_err(|error| malformed(&error))?;
        budget.spend("imports", 1, limits::IMPORTS)?;
        budget.core_import(import.module, import.name);
        if let TypeRef::Memory(memory) = import.ty {
            budget.memory_demand(memory.initial, memory.maximum);
        }
    }
    Ok(())
}

fn tables(budget: &mut Budget, section: TableSectionReader<'_>) -> Result<(), CompileError> {
    budget.spend("tables", u64::from(section.count()), limits::TABLES)?;
    for table in section {
        let table = table.map_err(|error| malformed(&error))?;
        budget.spend("table elements", table.ty.initial, limits::TABLE_ELEMENTS)?;
    }
    Ok(())
}

fn memories(budget: &mut Budget, section: MemorySectionReader<'_>) -> Result<(), CompileError> {
    budget.spend("memories", u64::from(section.count()), limits::MEMORIES)?;
    for memory in section {
        let memory = memory.map_err(|error| malformed(&error))?;
        budget.memory_demand(memory.initial, memory.maximum);
    }
    Ok(())
}

fn elements(budget: &mut Budget, section: ElementSectionReader<'_>) -> Result<(), CompileError> {
    budget.spend("element segments", u64::from(section.count()), limits::ELEMENT_SEGMENTS)?;
    for element in section {
        let items = match element.map_err(|error| malformed(&error))?.items {
            ElementItems::Functions(items) => items.count(),
            ElementItems::Expressions(_, items) => items.count(),
        };
        budget.spend("element items", u64::from(items), limits::ELEMENT_ITEMS)?;
    }
    Ok(())
}

fn component_imports(
    budget: &mut Budget,
    section: ComponentImportSectionReader<'_>,
) -> Result<(), CompileError> {
    component_items(budget, "component imports", section.count())?;
    if let Some(outer) = budget.outer_mut() {
        for import in section {
            outer.imports.push(import.map_err(|error| malformed(&error))?.name.name.to_owned());
        }
    }
    Ok(())
}

fn component_items(budget: &mut Budget, what: &'static str, count: u32) -> Result<(), CompileError> {
    budget.spend(what, u64::from(count), limits::COMPONENT_ITEMS)
}
