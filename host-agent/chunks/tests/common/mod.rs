//! What the tests of tiers share.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod s3;

use bytes::Bytes;
use std::time::Duration;
use warren_chunks::{
    Name,
    l3::{OriginLimits, retry::Retry},
};

/// An object that nothing else is.
pub(crate) fn object(number: u32, bytes: usize) -> (Name, Bytes) {
    let sealed: Bytes = number.to_le_bytes().into_iter().cycle().take(bytes).collect();
    (Name::of(&sealed), sealed)
}

/// Limits under which a failure is known soon.
pub(crate) fn hasty() -> OriginLimits {
    let retry = Retry { tries: 3, first: Duration::from_millis(1), longest: Duration::from_millis(2) };
    OriginLimits { deadline: Duration::from_secs(5), retry, ..OriginLimits::default() }
}

/// A runtime of a test.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// The full form is asked for.
pub(crate) fn is_full_form() -> bool {
    std::env::var_os("WARREN_SOAK").is_some()
}
