//! Bounds on a module's structure.
//!
//! Each is many times what real programs have (tests/functions: the largest function of `jq`, 3.3 MB of code, has 22 KB,
//! 86 locals and 841 branches) and small enough that one function at every limit compiles in seconds. A module of
//! many such functions is for the jail's CPU and memory limits to end.

/// Bytes of a module: what the control API accepts with room for its envelope.
pub const MODULE_BYTES: u64 = 64 << 20;

/// Bytes of one function's body: register allocation is worse than linear in it. Interpreter loops are the largest
/// functions in common use, a few hundred KiB.
pub const BODY_BYTES: u64 = 1 << 20;
/// Locals of one function, parameters included: each is a variable in SSA construction at every join.
pub const LOCALS: u64 = 20_000;
/// Nested blocks in one function: a compiled `match` nests one block an arm.
pub const NESTING: u64 = 4_096;
/// Targets of all `br_table`s of one function: each is an edge of the control-flow graph.
pub const BRANCH_TARGETS: u64 = 65_536;
/// Blocks, loops, conditions and conditional branches of one function: the basic blocks of its control-flow graph. The
/// most seen in tests/functions is 891; 80,000 loops of 12 bytes take Cranelift more than 10 s.
pub const BRANCHES: u64 = 16_384;
/// Branches times locals of one function. SSA construction keeps a value for each local at each join, so this product,
/// not the length, is what a small function can make a compiler suffer with: 4,000 loops over 1,000 locals compile in
/// 3 s, over 4,000 locals in more than 14. The most seen in tests/functions is 45,441.
pub const JOINED_LOCALS: u64 = 4 << 20;
/// The same, summed over all functions; `jq` has 1.5 million.
pub const ALL_JOINED_LOCALS: u64 = 64 << 20;
/// Locals of all functions: 100,000 one-byte functions can declare 2,000,000,000 of them in a file of 800 KB.
pub const ALL_LOCALS: u64 = 4 << 20;
/// Parameters of a function type: each call site moves all of them.
pub const PARAMS: u64 = 256;
/// Results of a function type, as for parameters.
pub const RESULTS: u64 = 64;

/// Functions with a body, over all core modules; `jq` has 4,796.
pub const FUNCTIONS: u64 = 100_000;
/// Core types.
pub const TYPES: u64 = 20_000;
/// Imports of core modules. A component's glue modules import a few dozen.
pub const IMPORTS: u64 = 4_096;
/// Exports of core modules.
pub const EXPORTS: u64 = 16_384;
/// Globals.
pub const GLOBALS: u64 = 16_384;
/// Tables. Every one of them is allocated for each instance.
pub const TABLES: u64 = 64;
/// Elements that tables hold from the start, over all tables: 8 bytes of memory each, not counted in linear memory.
pub const TABLE_ELEMENTS: u64 = 1 << 20;
/// Linear memories.
pub const MEMORIES: u64 = 32;
/// Element segments.
pub const ELEMENT_SEGMENTS: u64 = 16_384;
/// Items of all element segments: each becomes an initialiser that runs at instantiation.
pub const ELEMENT_ITEMS: u64 = 1 << 20;
/// Data segments.
pub const DATA_SEGMENTS: u64 = 65_536;

/// Core modules in a component: a WASI adapter and shims make four.
pub const CORE_MODULES: u64 = 32;
/// Depth of components in components.
pub const COMPONENT_DEPTH: u64 = 4;
/// Components in a component.
pub const COMPONENTS: u64 = 64;
/// Entries of any one kind of section of a component (types, instances, aliases, canonical functions, imports, exports).
pub const COMPONENT_ITEMS: u64 = 16_384;

/// Characters of an import's or export's name in an answer.
pub const NAME_CHARS: usize = 200;
/// Imports listed in an artefact's metadata.
pub const IMPORTS_LISTED: usize = 64;
