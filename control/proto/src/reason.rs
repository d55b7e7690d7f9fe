//! The reasons of `google.rpc.ErrorInfo`: stable UPPER_SNAKE words, one for each way a call can fail.
//!
//! A reason is listed here as soon as two services must agree on it or a client may want to branch on it.

// The request (fault: caller).

/// No or a wrong bearer token. UNAUTHENTICATED.
pub const NO_VALID_TOKEN: &str = "NO_VALID_TOKEN";
/// A certificate of the wrong role. PERMISSION_DENIED.
pub const WRONG_ROLE: &str = "WRONG_ROLE";
/// A field is out of its range. INVALID_ARGUMENT.
pub const BAD_REQUEST: &str = "BAD_REQUEST";
/// More than 6 MiB of payload. INVALID_ARGUMENT.
pub const PAYLOAD_TOO_LARGE: &str = "PAYLOAD_TOO_LARGE";
/// More than 64 MiB of a Wasm function's code or files, or 250 MiB of a Linux function's. INVALID_ARGUMENT.
pub const CODE_TOO_LARGE: &str = "CODE_TOO_LARGE";
/// NOT_FOUND.
pub const NO_SUCH_FUNCTION: &str = "NO_SUCH_FUNCTION";
/// NOT_FOUND.
pub const NO_SUCH_VERSION: &str = "NO_SUCH_VERSION";
/// NOT_FOUND.
pub const NO_SUCH_HOST: &str = "NO_SUCH_HOST";
/// NOT_FOUND.
pub const NO_SUCH_SNAPSHOT: &str = "NO_SUCH_SNAPSHOT";
/// UNAVAILABLE: where hosts share snapshots cannot be reached.
pub const ORIGIN_UNAVAILABLE: &str = "ORIGIN_UNAVAILABLE";
/// What was to be shown of it is not what was signed. DATA_LOSS.
pub const SNAPSHOT_DAMAGED: &str = "SNAPSHOT_DAMAGED";
/// NOT_FOUND.
pub const NO_SUCH_BLOB: &str = "NO_SUCH_BLOB";
/// ALREADY_EXISTS.
pub const FUNCTION_EXISTS: &str = "FUNCTION_EXISTS";
/// Somebody else changed it meanwhile. ABORTED.
pub const REVISION_CONFLICT: &str = "REVISION_CONFLICT";

// Files of a Linux function that are not taken (fault: caller), INVALID_ARGUMENT. The message names the entry.

/// The zip unpacks to far more than its size.
pub const ZIP_BOMB: &str = "ZIP_BOMB";
/// Not a zip, damaged, cut short, or with two opinions about what is in it.
pub const ZIP_MALFORMED: &str = "ZIP_MALFORMED";
/// A name that is absolute, leads out, is no UTF-8, or is too long.
pub const ZIP_UNSAFE_NAME: &str = "ZIP_UNSAFE_NAME";
/// A name twice, or once as a file and once as a folder.
pub const ZIP_DUPLICATE_NAME: &str = "ZIP_DUPLICATE_NAME";
/// A link, a device, a pipe, a socket.
pub const ZIP_SPECIAL_FILE: &str = "ZIP_SPECIAL_FILE";
/// Encrypted, or compressed in a way that is not read.
pub const ZIP_UNSUPPORTED: &str = "ZIP_UNSUPPORTED";
/// More than 10,000 files and folders.
pub const ZIP_TOO_MANY_ENTRIES: &str = "ZIP_TOO_MANY_ENTRIES";

// A limit (fault: throttle). RESOURCE_EXHAUSTED with RetryInfo.

/// The account runs as many invocations as it may.
pub const ACCOUNT_CONCURRENCY: &str = "ACCOUNT_CONCURRENCY";
/// The function runs as many invocations as it may.
pub const FUNCTION_CONCURRENCY: &str = "FUNCTION_CONCURRENCY";

// Warren or the machine (fault: system). Retryable unless said otherwise.

/// No worker is ready. UNAVAILABLE.
pub const NO_WORKER_READY: &str = "NO_WORKER_READY";
/// No ready worker has room for a sandbox of this size. UNAVAILABLE.
pub const NO_CAPACITY: &str = "NO_CAPACITY";
/// The worker did not answer or was declared lost; the function may have started. UNAVAILABLE.
pub const WORKER_LOST: &str = "WORKER_LOST";
/// No ready worker's KVM can boot Linux guests; the message has each host's own words. FAILED_PRECONDITION, not retryable.
pub const NO_LINUX_HOST: &str = "NO_LINUX_HOST";
/// No ready worker can give a Linux function the outbound network that it wants. FAILED_PRECONDITION, not retryable.
pub const NO_NETWORK: &str = "NO_NETWORK";
/// No ready worker that can run Linux functions holds this runtime. FAILED_PRECONDITION, not retryable.
pub const NO_SUCH_RUNTIME: &str = "NO_SUCH_RUNTIME";
/// A worker that can run Linux functions holds no kernel for the runtime. FAILED_PRECONDITION, not retryable.
pub const NO_KERNEL: &str = "NO_KERNEL";
/// A durable write failed for lack of space. RESOURCE_EXHAUSTED.
pub const DISK_FULL: &str = "DISK_FULL";
/// A durable write failed otherwise. INTERNAL.
pub const STORE_FAILED: &str = "STORE_FAILED";

// Between control and a worker. The first three promise that the function has NOT started, so that the frontend may
// try elsewhere without running anything twice.

/// This sandbox is not idle (the caller's hint was old). FAILED_PRECONDITION.
pub const SANDBOX_BUSY: &str = "SANDBOX_BUSY";
/// There is no such sandbox here (any more). NOT_FOUND.
pub const SANDBOX_GONE: &str = "SANDBOX_GONE";
/// The sandbox died before the event was handed to it. UNAVAILABLE. Clients are told it too, where every sandbox that was tried
/// for them died so, or the version was replaced meanwhile; retryable.
pub const SANDBOX_LOST_BEFORE_START: &str = "SANDBOX_LOST_BEFORE_START";
/// The sandbox died when the function may already have started. UNAVAILABLE.
pub const SANDBOX_LOST: &str = "SANDBOX_LOST";
/// The command carries an epoch older than the one the worker last saw. FAILED_PRECONDITION.
pub const STALE_EPOCH: &str = "STALE_EPOCH";

// The function's code (fault: function); made by workers and passed through by the frontend unchanged.

/// The handler ran past its timeout; its sandbox is gone. DEADLINE_EXCEEDED.
pub const FUNCTION_TIMED_OUT: &str = "FUNCTION_TIMED_OUT";
/// A Wasm trap: unreachable, out of bounds, division by zero. UNKNOWN, gRPC's code for an error an application raised.
pub const FUNCTION_TRAPPED: &str = "FUNCTION_TRAPPED";
/// It gave up after its memory limit was reached. UNKNOWN.
pub const FUNCTION_OUT_OF_MEMORY: &str = "FUNCTION_OUT_OF_MEMORY";
/// It recursed until its stack was full. UNKNOWN.
pub const FUNCTION_STACK_OVERFLOW: &str = "FUNCTION_STACK_OVERFLOW";
/// It exited with a code other than 0, which the message names. UNKNOWN.
pub const FUNCTION_EXITED: &str = "FUNCTION_EXITED";
/// It answered with an error of its own. UNKNOWN.
pub const FUNCTION_FAILED: &str = "FUNCTION_FAILED";
/// Instantiation or init failed. UNKNOWN.
pub const FUNCTION_INIT_FAILED: &str = "FUNCTION_INIT_FAILED";
/// Init ran past its time. DEADLINE_EXCEEDED.
pub const FUNCTION_INIT_TIMED_OUT: &str = "FUNCTION_INIT_TIMED_OUT";
/// More than 6 MiB of response. OUT_OF_RANGE.
pub const RESPONSE_TOO_LARGE: &str = "RESPONSE_TOO_LARGE";
/// The response is no JSON although the function promises it. UNKNOWN.
pub const RESPONSE_NOT_UTF8_JSON: &str = "RESPONSE_NOT_UTF8_JSON";

// The function's code at deploy, all INVALID_ARGUMENT with fault function; made by workers from the compiler's answer.

/// Not WebAssembly.
pub const MODULE_MALFORMED: &str = "MODULE_MALFORMED";
/// WebAssembly, but not valid.
pub const MODULE_INVALID: &str = "MODULE_INVALID";
/// Too much of one thing.
pub const MODULE_TOO_COMPLEX: &str = "MODULE_TOO_COMPLEX";
/// It imports what is not offered.
pub const MISSING_IMPORT: &str = "MISSING_IMPORT";
/// It lacks what its world demands.
pub const MISSING_EXPORT: &str = "MISSING_EXPORT";
/// An import or export has another type.
pub const WRONG_TYPE: &str = "WRONG_TYPE";
/// A policy where a function is wanted, or the reverse.
pub const WRONG_KIND: &str = "WRONG_KIND";
/// Its memories begin larger than the function's memory.
pub const MODULE_NEEDS_MORE_MEMORY: &str = "MODULE_NEEDS_MORE_MEMORY";
/// Compiling took too long.
pub const COMPILE_TIMED_OUT: &str = "COMPILE_TIMED_OUT";
/// Compiling took too much memory.
pub const COMPILE_OUT_OF_MEMORY: &str = "COMPILE_OUT_OF_MEMORY";
/// The files of /var/task are no plain archive. Fault caller.
pub const TASK_ARCHIVE_INVALID: &str = "TASK_ARCHIVE_INVALID";

// More of a worker's own (fault: system).

/// This host's memory is given out. RESOURCE_EXHAUSTED, retryable elsewhere.
pub const HOST_FULL: &str = "HOST_FULL";
/// This host stops. UNAVAILABLE.
pub const HOST_STOPPING: &str = "HOST_STOPPING";
/// The jailer cannot be reached (it restarts). UNAVAILABLE.
pub const JAILER_UNAVAILABLE: &str = "JAILER_UNAVAILABLE";
