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
/// More than 64 MiB of code or files. INVALID_ARGUMENT.
pub const CODE_TOO_LARGE: &str = "CODE_TOO_LARGE";
/// NOT_FOUND.
pub const NO_SUCH_FUNCTION: &str = "NO_SUCH_FUNCTION";
/// NOT_FOUND.
pub const NO_SUCH_VERSION: &str = "NO_SUCH_VERSION";
/// NOT_FOUND.
pub const NO_SUCH_HOST: &str = "NO_SUCH_HOST";
/// NOT_FOUND.
pub const NO_SUCH_BLOB: &str = "NO_SUCH_BLOB";
/// ALREADY_EXISTS.
pub const FUNCTION_EXISTS: &str = "FUNCTION_EXISTS";
/// Somebody else changed it meanwhile. ABORTED.
pub const REVISION_CONFLICT: &str = "REVISION_CONFLICT";

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
/// The sandbox died before the event was handed to it. UNAVAILABLE.
pub const SANDBOX_LOST_BEFORE_START: &str = "SANDBOX_LOST_BEFORE_START";
/// The sandbox died when the function may already have started. UNAVAILABLE.
pub const SANDBOX_LOST: &str = "SANDBOX_LOST";
/// The command carries an epoch older than the one the worker last saw. FAILED_PRECONDITION.
pub const STALE_EPOCH: &str = "STALE_EPOCH";

// The function's code (fault: function); made by workers and passed through by the frontend unchanged.

/// The handler ran past its timeout; its sandbox is gone. DEADLINE_EXCEEDED.
pub const FUNCTION_TIMED_OUT: &str = "FUNCTION_TIMED_OUT";
