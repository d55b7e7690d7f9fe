//! A table of system calls as the program that the kernel runs at each call (seccomp's classic BPF), made when Warren is compiled.
//!
//! ```text
//! architecture ─ another ─▶ kill
//!      │
//!   number ── binary search ─▶ any argument ─▶ allow
//!                          ├─▶ one argument ── binary search ─▶ one of its values ─▶ allow
//!                          │                └─▶ bits that must be clear ─────────▶ allow
//!                          └─▶ everything else, numbers of other interfaces too ─▶ kill
//! ```
//! A search instead of a chain, because the kernel runs a filter once for each call that there is when it takes it (to remember
//! which are allowed whatever their arguments): a chain of the Linux machine's 92 rows made that 1.7 ms of its start. And few
//! instructions, with one verdict for many searches, because the kernel translates each.
//!
//! Arguments are compared in 32 bits, as the kernel takes those that rows name: requests, commands, options, flags, protections.
//! The upper half must not decide.
//!
//! A table that cannot be a filter does not compile.

use crate::compiler::{ArgumentRule, SystemCall};

/// One instruction: `struct sock_filter` of the kernel's `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What it does.
    pub code: u16,
    /// Instructions to pass over if a comparison holds.
    pub jump_true: u8,
    /// And if it does not.
    pub jump_false: u8,
    /// What is compared, loaded, returned.
    pub value: u32,
}

/// Load the 32-bit word of the call's description at this offset: `BPF_LD | BPF_W | BPF_ABS`.
const LOAD: u16 = 0x20;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGE | BPF_K`.
const IF_AT_LEAST: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`.
const IF_ANY_BIT: u16 = 0x45;
/// Pass over so many instructions: `BPF_JMP | BPF_JA`.
const JUMP: u16 = 0x05;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;

/// `SECCOMP_RET_ALLOW`.
const ALLOW: u32 = 0x7FFF_0000;
/// `SECCOMP_RET_KILL_PROCESS`.
const KILL: u32 = 0x8000_0000;
/// `AUDIT_ARCH_X86_64`.
const X86_64: u32 = 0xC000_003E;
/// Where `struct seccomp_data` has the call's number, the architecture, and the first argument's lower half.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
/// The farthest that a comparison can jump.
const NEAR: usize = 255;

/// Most rows of a table.
const ROWS: usize = 128;
/// Most instructions of a filter.
const INSTRUCTIONS: usize = 768;
/// Most places where a search can end: each row's own, and what is between.
const PLACES: usize = 2 * ROWS + 1;

/// Rows of a table, in the order of their numbers.
pub struct Rows {
    calls: [SystemCall; ROWS],
    len: usize,
}

/// What the kernel is given. It grows from its end to its beginning: a comparison jumps forward, so what it jumps to is there first.
pub struct Filter {
    code: [Instruction; INSTRUCTIONS],
    len: usize,
}

/// Where a search ends.
#[derive(Clone, Copy)]
enum End {
    Kill,
    Allow,
    /// Another search, of an argument: that of these rows, `from` and how many.
    Argument(usize, usize),
}

/// Numbers from `start` on, up to the next place.
#[derive(Clone, Copy)]
struct Place {
    start: u32,
    end: End,
}

struct Places {
    all: [Place; PLACES],
    len: usize,
}

impl Rows {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        let nothing = SystemCall { name: "", number: 0, rule: ArgumentRule::Any, why: "" };
        Self { calls: [nothing; ROWS], len: 0 }
    }

    /// Those of a table that is one filter.
    ///
    /// # Panics
    /// As [`Rows::push`].
    #[must_use]
    pub const fn of(calls: &[SystemCall]) -> Self {
        let (mut rows, mut at) = (Self::new(), 0);
        while at < calls.len() {
            rows.push(calls[at]);
            at += 1;
        }
        rows
    }

    /// One more.
    ///
    /// # Panics
    /// If it cannot be in a filter; in a constant, as all tables are, that does not compile.
    pub const fn push(&mut self, call: SystemCall) {
        assert!(self.len < ROWS, "too many rows");
        assert!(call.number >= 0 && call.number < 1 << 30, "no number of a system call");
        let mut at = self.len;
        while at > 0 && comes_before(&call, &self.calls[at - 1]) {
            self.calls[at] = self.calls[at - 1];
            at -= 1;
        }
        self.calls[at] = call;
        self.len += 1;
    }

    /// The filter that allows them and nothing else.
    ///
    /// # Panics
    /// The same.
    #[must_use]
    pub const fn filter(&self) -> Filter {
        let nothing = Instruction { code: RETURN, jump_true: 0, jump_false: 0, value: KILL };
        let mut filter = Filter { code: [nothing; INSTRUCTIONS], len: 0 };
        let places = self.numbers();
        let found = filter.search(self, &places, 0, places.len);
        filter.goes_to(found);
        filter.push(LOAD, 0, 0, NUMBER);
        filter.push(RETURN, 0, 0, KILL);
        filter.push(IF_EQUAL, 1, 0, X86_64);
        filter.push(LOAD, 0, 0, ARCHITECTURE);
        filter
    }

    /// How many rows from here on have this one's number.
    const fn same(&self, from: usize) -> usize {
        let mut to = from;
        while to < self.len && self.calls[to].number == self.calls[from].number {
            to += 1;
        }
        to - from
    }

    const fn numbers(&self) -> Places {
        let mut places = Places::new();
        let mut row = 0;
        while row < self.len {
            let same = self.same(row);
            let end = match self.calls[row].rule {
                ArgumentRule::Any => {
                    assert!(same == 1, "a call with any argument has another row");
                    End::Allow
                }
                _ => End::Argument(row, same),
            };
            places.push(low(self.calls[row].number.cast_unsigned()), end);
            row += same;
        }
        places
    }

    /// The values of an argument that are allowed, of rows with one number.
    #[expect(clippy::panic, reason = "in a constant: it does not compile")]
    const fn values(&self, from: usize, count: usize, of: u8) -> Places {
        let mut places = Places::new();
        let mut row = from;
        while row < from + count {
            match self.calls[row].rule {
                ArgumentRule::Equals { argument, value } => {
                    assert!(argument == of, "rows of a call compare several of its arguments");
                    places.push(low(value), End::Allow);
                }
                _ => panic!("rows of a call compare values and bits"),
            }
            row += 1;
        }
        places
    }
}

impl Default for Rows {
    fn default() -> Self {
        Self::new()
    }
}

impl Places {
    const fn new() -> Self {
        Self { all: [Place { start: 0, end: End::Kill }; PLACES], len: 1 }
    }

    /// And this one number, which is larger than those before it.
    const fn push(&mut self, number: u32, end: End) {
        let last = self.all[self.len - 1];
        let joins = last.start == number && matches!(last.end, End::Kill);
        assert!(joins || last.start < number, "a row is there twice");
        if joins {
            self.len -= 1;
        }
        // Neighbours that are both allowed are one place.
        let one = self.len > 0 && matches!((self.all[self.len - 1].end, end), (End::Allow, End::Allow));
        if !one {
            self.all[self.len] = Place { start: number, end };
            self.len += 1;
        }
        if number < u32::MAX {
            self.all[self.len] = Place { start: number + 1, end: End::Kill };
            self.len += 1;
        }
    }
}

impl Filter {
    /// Its instructions, in order.
    #[must_use]
    pub const fn instructions(&self) -> &[Instruction] {
        self.code.split_at(INSTRUCTIONS - self.len).1
    }

    /// Puts an instruction before all others. Where it is, counted from the end.
    const fn push(&mut self, code: u16, jump_true: u8, jump_false: u8, value: u32) -> usize {
        assert!(self.len < INSTRUCTIONS, "too many instructions");
        self.len += 1;
        self.code[INSTRUCTIONS - self.len] = Instruction { code, jump_true, jump_false, value };
        self.len
    }

    /// How many instructions whoever is put before all others jumps over, to be there.
    const fn over(&self, there: usize) -> usize {
        self.len - there
    }

    /// The same for a comparison that is put after one more at most, which cannot jump far: by way of a jump, if it must.
    const fn near(&mut self, there: usize) -> usize {
        if self.over(there) < NEAR {
            return there;
        }
        self.push(JUMP, 0, 0, low(self.over(there) as u64))
    }

    /// What is put before all others next, goes on there.
    const fn goes_to(&mut self, there: usize) {
        if self.over(there) > 0 {
            self.push(JUMP, 0, 0, low(self.over(there) as u64));
        }
    }

    const fn compares(&mut self, code: u16, value: u32, [holds, fails]: [usize; 2]) -> usize {
        let holds = self.near(holds);
        let fails = self.near(fails);
        let [holds, fails] = [low(self.over(holds) as u64), low(self.over(fails) as u64)];
        #[expect(clippy::cast_possible_truncation, reason = "near")]
        let at = self.push(code, holds as u8, fails as u8, value);
        at
    }

    /// A verdict: one that is near enough, or another.
    const fn verdict(&mut self, value: u32) -> usize {
        let mut at = self.len;
        while at > 0 && self.over(at) < NEAR / 2 {
            let there = self.code[INSTRUCTIONS - at];
            if there.code == RETURN && there.value == value {
                return at;
            }
            at -= 1;
        }
        self.push(RETURN, 0, 0, value)
    }

    /// The place of what was loaded, among those of `from..to`. Where the search begins.
    const fn search(&mut self, rows: &Rows, places: &Places, from: usize, to: usize) -> usize {
        if to - from == 1 {
            return match places.all[from].end {
                End::Kill => self.verdict(KILL),
                End::Allow => self.verdict(ALLOW),
                End::Argument(row, count) => self.argument(rows, row, count),
            };
        }
        let middle = usize::midpoint(from, to);
        let above = self.search(rows, places, middle, to);
        let below = self.search(rows, places, from, middle);
        self.compares(IF_AT_LEAST, places.all[middle].start, [above, below])
    }

    /// What the rows of one call say of its argument.
    #[expect(clippy::panic, reason = "in a constant: it does not compile")]
    const fn argument(&mut self, rows: &Rows, from: usize, count: usize) -> usize {
        let (found, argument) = match rows.calls[from].rule {
            ArgumentRule::Equals { argument, .. } => {
                let values = rows.values(from, count, argument);
                (self.search(rows, &values, 0, values.len), argument)
            }
            ArgumentRule::BitsClear { argument, bits } => {
                assert!(count == 1, "rows of a call compare values and bits");
                let ends = [self.verdict(KILL), self.verdict(ALLOW)];
                (self.compares(IF_ANY_BIT, low(bits), ends), argument)
            }
            ArgumentRule::Any => panic!("any argument will do"),
        };
        assert!(argument < 6, "a call has six arguments");
        self.goes_to(found);
        // The lower half: x86-64 has it first.
        self.push(LOAD, 0, 0, FIRST_ARGUMENT + 8 * argument as u32)
    }
}

impl core::fmt::Debug for Filter {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_list().entries(self.instructions()).finish()
    }
}

/// By number, then by the value that is compared.
const fn comes_before(one: &SystemCall, other: &SystemCall) -> bool {
    one.number < other.number || (one.number == other.number && compared(one.rule) < compared(other.rule))
}

const fn compared(rule: ArgumentRule) -> u32 {
    match rule {
        ArgumentRule::Any => 0,
        ArgumentRule::Equals { value, .. } => low(value),
        ArgumentRule::BitsClear { bits, .. } => low(bits),
    }
}

/// What is compared in 32 bits has no more.
const fn low(value: u64) -> u32 {
    assert!(value <= u32::MAX as u64, "a value of more than 32 bits");
    #[expect(clippy::cast_possible_truncation, reason = "just compared")]
    let low = value as u32;
    low
}

#[cfg(test)]
mod tests;
