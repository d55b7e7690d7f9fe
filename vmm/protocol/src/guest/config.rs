//! What a guest becomes.

use super::{Environment, GUEST_VERSION, Refused, Text};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Everything a Linux guest must know to become one function's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestConfig {
    /// [`GUEST_VERSION`]; another is refused.
    pub version: u32,
    /// The sandbox's id; the guest's host name.
    pub sandbox: Text<64>,
    /// `AWS_LAMBDA_FUNCTION_NAME`.
    pub function: Text<256>,
    /// `AWS_LAMBDA_FUNCTION_VERSION`: `$LATEST` or a number.
    pub function_version: Text<64>,
    /// What `Lambda-Runtime-Invoked-Function-Arn` says where an event's context names no other.
    pub function_arn: Text<512>,
    /// The account, for extensions.
    pub account: Text<64>,
    /// `AWS_REGION`.
    pub region: Text<64>,
    /// `_HANDLER`.
    pub handler: Text<256>,
    /// The runtime's name for `AWS_EXECUTION_ENV`: `AWS_Lambda_` and this; empty for runtimes of the function's own.
    pub runtime: Text<64>,
    /// What starts the runtime, in place of the first `bootstrap` of `/var/runtime`, `/var/task` and `/opt`; empty to look
    /// for that.
    pub entrypoint: Vec<Text<4096>>,
    /// The function's own variables.
    pub env: Environment,
    /// `AWS_LAMBDA_FUNCTION_MEMORY_SIZE`.
    pub memory: Mib,
    /// The function's timeout; an event's own may be shorter.
    pub timeout: Millis,
    /// What init may take.
    pub init_timeout: Millis,
    /// What `/tmp` may hold.
    pub tmp: Mib,
    /// Bytes of the archive on the task disk; 0 if there is none.
    pub task_len: u64,
    /// Nanoseconds since the Unix epoch, now.
    pub wall_unix_ns: u64,
    /// Fresh randomness for the kernel's pool.
    pub seed: [u8; 32],
    /// `AWS_LAMBDA_LOG_GROUP_NAME`.
    pub log_group: Text<512>,
    /// `AWS_LAMBDA_LOG_STREAM_NAME`.
    pub log_stream: Text<512>,
    /// `AWS_LAMBDA_LOG_FORMAT`.
    pub log_format: LogFormat,
    /// `AWS_LAMBDA_LOG_LEVEL`: for [`LogFormat::Json`]; empty for none.
    pub log_level: Text<16>,
    /// `AWS_LAMBDA_INITIALIZATION_TYPE`.
    pub kind: SandboxKind,
    /// The way out, if the sandbox has a network.
    pub network: Option<Network>,
}

impl GuestConfig {
    /// A function with nothing special about it: what a test or a host starts from.
    #[must_use]
    pub fn of(function: Text<256>) -> Self {
        Self {
            version: GUEST_VERSION,
            sandbox: Text::cut("sandbox"),
            function_version: Text::cut("$LATEST"),
            function_arn: Text::cut("arn:aws:lambda:local:000000000000:function:")
                .followed_by(function.as_str()),
            account: Text::cut("000000000000"),
            region: Text::cut("local"),
            log_group: Text::cut("/aws/lambda/").followed_by(function.as_str()),
            log_stream: Text::cut("sandbox"),
            function,
            handler: Text::default(),
            runtime: Text::default(),
            entrypoint: Vec::new(),
            env: Environment::default(),
            memory: Mib::DEFAULT_MEMORY,
            timeout: Millis::DEFAULT_TIMEOUT,
            init_timeout: Millis::DEFAULT_INIT,
            tmp: Mib::DEFAULT_TMP,
            task_len: 0,
            wall_unix_ns: 0,
            seed: [0; 32],
            log_format: LogFormat::Text,
            log_level: Text::default(),
            kind: SandboxKind::OnDemand,
            network: None,
        }
    }
}

impl<const MOST: usize> Text<MOST> {
    /// This and another, cut.
    fn followed_by(&self, more: &str) -> Self {
        Self::cut(&alloc::format!("{self}{more}"))
    }
}

/// How a function's logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Lines as they are.
    Text,
    /// One JSON object a line, by runtimes that do so.
    Json,
}

/// Why the sandbox exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxKind {
    /// Somebody waits.
    OnDemand,
    /// Initialised ahead.
    Provisioned,
    /// To be written down, and what is brought back from that.
    Snapshot,
}

/// What a guest is told that was brought back from a snapshot. The rest of its [`GuestConfig`] holds on: programs know it by heart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// [`GUEST_VERSION`]; another is refused.
    pub version: u32,
    /// Of no other guest of this snapshot: a number that the host never gives twice.
    pub generation: u128,
    /// The sandbox's id from here on; the guest's host name.
    pub sandbox: Text<64>,
    /// Nanoseconds since the Unix epoch, now.
    pub wall_unix_ns: u64,
    /// Fresh randomness for the kernel's pool, of the host's own: nobody else may have it.
    pub seed: [u8; 32],
}

/// The guest's own side of its network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its IPv4 address.
    pub address: [u8; 4],
    /// Length of the network's prefix, at most 32.
    pub prefix: u8,
    /// The router's address.
    pub gateway: [u8; 4],
    /// Whom to ask for names; three at most are used.
    pub nameservers: Vec<[u8; 4]>,
}

/// Milliseconds, from 1 to the longest that any time limit may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Millis(u32);

/// Mebibytes, from 1 to the most that memory or `/tmp` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mib(u32);

impl Millis {
    /// Fifteen minutes.
    pub const MAX: u32 = 900_000;
    /// Lambda's 3 seconds.
    pub const DEFAULT_TIMEOUT: Self = Self(3_000);
    /// Lambda's 10 seconds.
    pub const DEFAULT_INIT: Self = Self(10_000);
}

impl Mib {
    /// 10 GiB.
    pub const MAX: u32 = 10 << 10;
    /// Lambda's 128 MiB of memory.
    pub const DEFAULT_MEMORY: Self = Self(128);
    /// Lambda's 512 MiB of `/tmp`.
    pub const DEFAULT_TMP: Self = Self(512);

    /// As bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 20
    }
}

macro_rules! from_one_to_max {
    ($($kind:ident),*) => { $(
        impl $kind {
            /// The number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl TryFrom<u32> for $kind {
            type Error = Refused;

            fn try_from(number: u32) -> Result<Self, Refused> {
                match number {
                    1..=Self::MAX => Ok(Self(number)),
                    _ => Err(Refused::Range { least: 1, most: Self::MAX }),
                }
            }
        }

        impl From<$kind> for u32 {
            fn from(number: $kind) -> Self {
                number.0
            }
        }
    )* };
}
from_one_to_max!(Millis, Mib);
