//! Functions as WASI preview 1 commands: a new instance for every event.

use crate::{
    failure::{Failure, Halted},
    limits::Limits,
    outside::Outside,
};
use alloc::boxed::Box;
use warren_abi::{outcome::FunctionError, wasi};
use warren_wasi::{Answer, Memory as View, Open, Stop, Wasi};
use wasmtime::{Caller, Engine, Extern, InstancePre, Linker, Memory, Module, ModuleExport, Store};

/// What lives as long as the sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) wasi: Wasi<Outside>,
    pub(crate) limits: Limits,
    /// The running instance's memory, once it has asked for something.
    memory: Option<Memory>,
}

impl Sandbox {
    pub(crate) const fn new(wasi: Wasi<Outside>, limits: Limits) -> Self {
        Self { wasi, limits, memory: None }
    }
}

/// A linked command.
pub(crate) struct Command {
    engine: Engine,
    instance: InstancePre<Box<Sandbox>>,
    /// `_start`, found once.
    start: ModuleExport,
}

impl Command {
    /// Links a module, or says what it lacks.
    pub(crate) fn new(engine: &Engine, module: &Module) -> Result<Self, Failure> {
        for import in module.imports() {
            let known = import.module() == wasi::MODULE && wasi::FUNCTIONS.contains(&import.name());
            if !known {
                let name = format_args!("{}.{}", import.module(), import.name());
                return Err(Failure::new(FunctionError::MissingImport, name));
            }
        }
        let start = module
            .get_export_index("_start")
            .filter(|_| module.get_export("_start").is_some_and(|export| export.func().is_some()))
            .ok_or_else(|| Failure::new(FunctionError::MissingExport, "_start"))?;
        if module.get_export("memory").is_none_or(|export| export.memory().is_none()) {
            return Err(Failure::new(FunctionError::MissingExport, "memory"));
        }
        let mut linker = Linker::new(engine);
        link(&mut linker, |name| module.imports().any(|import| import.name() == name))
            .map_err(|error| Failure::new(FunctionError::Init, format_args!("{error:#}")))?;
        let instance = linker
            .instantiate_pre(module)
            .map_err(|error| Failure::new(FunctionError::MissingImport, format_args!("{error:#}")))?;
        Ok(Self { engine: engine.clone(), instance, start })
    }

    /// Runs one event in a new instance; the bytes of its response.
    pub(crate) fn run(&self, mut sandbox: Box<Sandbox>) -> (Box<Sandbox>, Result<usize, Failure>) {
        sandbox.wasi.begin_event();
        sandbox.limits.begin_instance();
        sandbox.memory = None;
        // The one thing here that cannot give the sandbox back when it fails: it allocates little, out of the reserve.
        let mut store = Store::new(&self.engine, sandbox);
        store.limiter(|sandbox| &mut sandbox.limits);
        let result = self
            .instance
            .instantiate(&mut store)
            .inspect_err(|_| store.data_mut().limits.note_failed_instance())
            .and_then(|instance| {
                let start = instance.get_module_export(&mut store, &self.start).and_then(Extern::into_func);
                start.ok_or_else(|| wasmtime::Error::msg("no _start"))?.typed::<(), ()>(&store)
            })
            .and_then(|start| start.call(&mut store, ()));
        store.data_mut().limits.observe();
        let sandbox = store.into_data();
        let failure = result.err().and_then(|error| Failure::of_call(&error, &sandbox.limits));
        let outcome = failure.map_or_else(|| Ok(sandbox.wasi.host.response_len()), Err);
        (sandbox, outcome)
    }
}

type Call<'a> = Caller<'a, Box<Sandbox>>;

/// Runs one WASI function on the caller's memory.
fn answer(
    mut caller: Call<'_>,
    call: impl FnOnce(&mut Wasi<Outside>, &mut View<'_>) -> Answer,
) -> wasmtime::Result<i32> {
    let memory = if let Some(memory) = caller.data().memory {
        memory
    } else {
        let memory = caller.get_export("memory").and_then(Extern::into_memory);
        let memory = memory.ok_or_else(|| wasmtime::Error::msg("no exported memory"))?;
        caller.data_mut().memory = Some(memory);
        memory
    };
    let (bytes, sandbox) = memory.data_and_store_mut(&mut caller);
    let answer = call(&mut sandbox.wasi, &mut View::new(bytes));
    sandbox.limits.observe();
    match answer {
        Ok(()) => Ok(0),
        Err(Stop::Errno(errno)) => Ok(errno.code()),
        Err(Stop::Halt(halt)) => Err(wasmtime::Error::new(Halted(halt))),
    }
}

/// Defines functions whose parameters go straight through.
macro_rules! define {
    ($linker:ident, $wanted:ident: $($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        if $wanted(stringify!($name)) {
            $linker.func_wrap(wasi::MODULE, stringify!($name), |caller: Call<'_> $(, $arg: $kind)*| {
                answer(caller, |wasi, memory| wasi.$name(memory $(, $arg)*))
            })?;
        }
    )*};
}

/// Defines those of the 46 functions that are wanted: each definition costs some microseconds of a cold start.
fn link(linker: &mut Linker<Box<Sandbox>>, wanted: impl Fn(&str) -> bool) -> wasmtime::Result<()> {
    define! { linker, wanted:
        args_get(argv: u32, buffer: u32);
        args_sizes_get(count: u32, size: u32);
        clock_res_get(clock: u32, resolution: u32);
        clock_time_get(clock: u32, precision: u64, time: u32);
        environ_get(environ: u32, buffer: u32);
        environ_sizes_get(count: u32, size: u32);
        fd_advise(fd: u32, offset: u64, len: u64, advice: u32);
        fd_allocate(fd: u32, offset: u64, len: u64);
        fd_close(fd: u32);
        fd_datasync(fd: u32);
        fd_fdstat_get(fd: u32, stat: u32);
        fd_fdstat_set_flags(fd: u32, flags: u32);
        fd_fdstat_set_rights(fd: u32, base: u64, inheriting: u64);
        fd_filestat_get(fd: u32, stat: u32);
        fd_filestat_set_size(fd: u32, size: u64);
        fd_filestat_set_times(fd: u32, atim: u64, mtim: u64, flags: u32);
        fd_pread(fd: u32, iovs: u32, count: u32, offset: u64, nread: u32);
        fd_prestat_dir_name(fd: u32, path: u32, len: u32);
        fd_prestat_get(fd: u32, prestat: u32);
        fd_pwrite(fd: u32, iovs: u32, count: u32, offset: u64, nwritten: u32);
        fd_read(fd: u32, iovs: u32, count: u32, nread: u32);
        fd_readdir(fd: u32, buffer: u32, len: u32, cookie: u64, used: u32);
        fd_renumber(from: u32, to: u32);
        fd_seek(fd: u32, delta: u64, whence: u32, position: u32);
        fd_sync(fd: u32);
        fd_tell(fd: u32, position: u32);
        fd_write(fd: u32, iovs: u32, count: u32, nwritten: u32);
        path_create_directory(fd: u32, path: u32, len: u32);
        path_filestat_get(fd: u32, lookup: u32, path: u32, len: u32, stat: u32);
        path_filestat_set_times(fd: u32, lookup: u32, path: u32, len: u32, atim: u64, mtim: u64, flags: u32);
        path_link(fd: u32, lookup: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32);
        path_readlink(fd: u32, path: u32, len: u32, buffer: u32, buffer_len: u32, used: u32);
        path_remove_directory(fd: u32, path: u32, len: u32);
        path_rename(fd: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32);
        path_symlink(target: u32, target_len: u32, fd: u32, path: u32, len: u32);
        path_unlink_file(fd: u32, path: u32, len: u32);
        poll_oneoff(subs: u32, events: u32, count: u32, nevents: u32);
        proc_raise(signal: u32);
        random_get(buffer: u32, len: u32);
        sched_yield();
        sock_accept(fd: u32, flags: u32, ro_fd: u32);
        sock_recv(fd: u32, iovs: u32, count: u32, flags: u32, ro_len: u32, ro_flags: u32);
        sock_send(fd: u32, iovs: u32, count: u32, flags: u32, so_len: u32);
        sock_shutdown(fd: u32, how: u32);
    }
    // The two whose signatures are not all numbers in, error number out.
    if wanted("proc_exit") {
        linker.func_wrap(
            wasi::MODULE,
            "proc_exit",
            |mut caller: Call<'_>, code: u32| -> wasmtime::Result<()> {
                match caller.data_mut().wasi.proc_exit(code) {
                    Err(Stop::Halt(halt)) => Err(wasmtime::Error::new(Halted(halt))),
                    _ => Ok(()),
                }
            },
        )?;
    }
    if wanted("path_open") {
        linker.func_wrap(
            wasi::MODULE,
            "path_open",
            |caller: Call<'_>,
             fd: u32,
             lookup: u32,
             path: u32,
             len: u32,
             oflags: u32,
             rights: u64,
             inheriting: u64,
             flags: u32,
             opened: u32| {
                let how = Open { oflags, rights, inheriting, flags };
                answer(caller, |wasi, memory| wasi.path_open(memory, fd, lookup, path, len, how, opened))
            },
        )?;
    }
    Ok(())
}
