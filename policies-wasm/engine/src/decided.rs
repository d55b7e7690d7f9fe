//! What a caller gets back from a decision, and what is told about a policy.

/// Which decision a policy makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// How well functions fit hosts.
    Packing,
    /// Which host gets a new sandbox.
    Placement,
    /// Which sandbox takes an invocation.
    Routing,
}

impl Kind {
    /// The name people and files use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Packing => "packing",
            Self::Placement => "placement",
            Self::Routing => "routing",
        }
    }
}

/// For whom a decision is made; kept beside it so that it can be explained. Long names are cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct About<'a> {
    /// The function's name.
    pub function: &'a str,
    /// The request's id.
    pub request: &'a str,
}

/// A decision: the answer, valid whoever gave it, and who did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided<T> {
    /// The answer; it has passed every hard limit.
    pub answer: T,
    /// Who decided.
    pub by: By,
    /// The whole decision, in nanoseconds.
    pub took_ns: u64,
    /// Fuel the policy burnt; 0 if none ran.
    pub fuel: u64,
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The loaded policy.
    Wasm,
    /// The built-in default, and why.
    Native(WhyNative),
}

/// Why the built-in default decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyNative {
    /// No policy is loaded.
    NoPolicy,
    /// The policy is still being compiled.
    Compiling,
    /// The policy could not be compiled or loaded.
    NotLoaded,
    /// The policy trapped in this decision.
    Trap,
    /// The policy passed its deadline in this decision.
    Timeout,
    /// The policy used up its fuel in this decision.
    Fuel,
    /// The policy's answer broke a hard limit.
    Invalid,
    /// The policy's next instance is being made.
    Rebuilding,
    /// The policy failed so often that it rests for a while.
    Resting,
}

impl WhyNative {
    /// The name people and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoPolicy => "no policy",
            Self::Compiling => "compiling",
            Self::NotLoaded => "not loaded",
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Fuel => "fuel",
            Self::Invalid => "invalid answer",
            Self::Rebuilding => "rebuilding",
            Self::Resting => "resting",
        }
    }
}

/// Which state a policy is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No policy: the built-in default decides.
    Native,
    /// A policy is announced and not loaded yet: the built-in default decides.
    Compiling,
    /// The announced policy could not be compiled or loaded: the built-in default decides until a later try succeeds.
    Failed,
    /// The policy decides.
    Active,
    /// The policy failed repeatedly and rests: the built-in default decides, the policy is tried again later.
    Fallback,
}

impl State {
    /// The name people and metrics use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Compiling => "compiling",
            Self::Failed => "failed",
            Self::Active => "active",
            Self::Fallback => "fallback",
        }
    }
}

/// A policy's name and digest, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// For instance `warren-policy-packing`.
    pub name: String,
    /// BLAKE3 of the component, hexadecimal.
    pub digest: String,
}

/// A policy's state and figures at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// Which decision it makes.
    pub kind: Kind,
    /// What is loaded or announced; none in state [`State::Native`].
    pub identity: Option<Identity>,
    /// Which state it is in.
    pub state: State,
    /// Decisions in all, whoever made them.
    pub decisions: u64,
    /// Of them, made by the built-in default although a policy was to decide.
    pub fallbacks: u64,
    /// Of the fallbacks, by a trap.
    pub traps: u64,
    /// By the deadline.
    pub timeouts: u64,
    /// By fuel.
    pub out_of_fuel: u64,
    /// By an invalid answer.
    pub invalid: u64,
    /// While an instance was rebuilt, the policy rested or could not be loaded.
    pub unavailable: u64,
    /// Instances made since the policy was loaded.
    pub instances: u64,
    /// Median time of a decision.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// Median fuel of the policy's own decisions.
    pub fuel_p50: u64,
    /// The last failure, for people; empty if there was none.
    pub last_error: String,
}

/// One past decision, for people.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The request's own time.
    pub unix_ms: u64,
    /// Which decision.
    pub kind: Kind,
    /// The function's name.
    pub function: String,
    /// The request's id.
    pub request: String,
    /// Who decided, and why.
    pub by: By,
    /// One line: what was chosen and why.
    pub text: String,
    /// The first candidates, the chosen among them.
    pub candidates: Vec<Candidate>,
    /// The whole decision, in nanoseconds.
    pub took_ns: u64,
    /// Fuel the policy burnt.
    pub fuel: u64,
}

/// A candidate of a past decision, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The host's name, or the sandbox's number in its request.
    pub id: String,
    /// What it was rated at.
    pub score: i64,
    /// Whether it was chosen.
    pub chosen: bool,
    /// What else is known of it.
    pub note: String,
}
