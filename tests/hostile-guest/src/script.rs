//! Steps of a guest as data: what a case does, in the order it does it.

/// Bytes of a step as the guest reads it.
pub const STEP_LEN: usize = 48;

/// What a step does; the guest's interpreter ([`crate::guest`]) has one branch for each.
///
/// A, B, C are its words; a step is done `count` times, A and B growing by their increments each time. An exception ends one time of
/// it, is counted, and the next goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Power off.
    End = 0,
    /// Write B to address A, so many bytes.
    Write = 1,
    /// Read address A into the register of what was seen.
    Read = 2,
    /// Write B to port A.
    Out = 3,
    /// Read port A.
    In = 4,
    /// Wait until at address A there is B.
    Wait = 5,
    /// Wait for that or until the device of window C needs a reset; prints `used` or `needs-reset`.
    WaitDevice = 6,
    /// At address A there is B, or the case has failed: said, and a reset.
    Check = 7,
    /// Print the characters of B in a line.
    Say = 8,
    /// Read model-specific register A; counts what was not refused.
    ReadMsr = 9,
    /// Write B to model-specific register A; counts what was not refused.
    WriteMsr = 10,
    /// CPUID of leaf A, subleaf B.
    Cpuid = 11,
    /// Call the code at A. It keeps r8 to r15 and returns.
    Call = 12,
    /// What was seen, of the bits in A, is B, or the case has failed.
    CheckSeen = 13,
    /// Write B and then C to address A, four bytes each.
    Toggle = 14,
    /// Go on A bytes of steps before this one, until it was done C times.
    Loop = 15,
    /// See how many exceptions and, in the upper half, how many unrefused registers there were.
    Counts = 16,
    /// Eight bytes at A and behind it to the eight at B.
    Copy = 17,
    /// Print what was seen, as a number.
    Print = 18,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub op: Op,
    /// Bytes of an access.
    pub size: u8,
    /// How often.
    pub count: u32,
    /// A, B, C.
    pub words: [u64; 3],
    /// What A and B grow by.
    pub grow: [u64; 2],
}

/// A case's steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<Step>,
    code: Vec<u8>,
}

impl Script {
    /// Adds a step.
    pub fn step(&mut self, op: Op, size: u8, words: [u64; 3]) -> &mut Self {
        self.many(op, size, 1, words, [0; 2])
    }

    /// Adds one that is done so often.
    pub fn many(&mut self, op: Op, size: u8, count: u32, words: [u64; 3], grow: [u64; 2]) -> &mut Self {
        self.steps.push(Step { op, size, count, words, grow });
        self
    }

    /// Writes.
    pub fn write(&mut self, size: u8, address: u64, value: u64) -> &mut Self {
        self.step(Op::Write, size, [address, value, 0])
    }

    /// Writes four bytes.
    pub fn write32(&mut self, address: u64, value: u64) -> &mut Self {
        self.write(4, address, value)
    }

    /// Fills memory with a word of eight bytes.
    pub fn fill(&mut self, address: u64, len: u32, value: u64) -> &mut Self {
        self.many(Op::Write, 8, len.div_ceil(8), [address, value, 0], [8, 0])
    }

    /// Writes bytes, eight at a time; what is beyond the last is zero.
    pub fn bytes(&mut self, address: u64, bytes: &[u8]) -> &mut Self {
        for (piece, at) in bytes.chunks(8).zip((address..).step_by(8)) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(piece) {
                *to = *from;
            }
            self.write(8, at, u64::from_le_bytes(word));
        }
        self
    }

    /// Reads.
    pub fn read(&mut self, size: u8, address: u64) -> &mut Self {
        self.step(Op::Read, size, [address, 0, 0])
    }

    /// Writes a byte to a port.
    pub fn out(&mut self, port: u16, value: u8) -> &mut Self {
        self.step(Op::Out, 1, [port.into(), value.into(), 0])
    }

    /// Insists on what is in memory.
    pub fn check(&mut self, size: u8, address: u64, value: u64) -> &mut Self {
        self.step(Op::Check, size, [address, value, 0])
    }

    /// Insists on what was seen last.
    pub fn seen(&mut self, mask: u64, value: u64) -> &mut Self {
        self.step(Op::CheckSeen, 8, [mask, value, 0])
    }

    /// Prints a word of up to eight characters.
    pub fn say(&mut self, word: &str) -> &mut Self {
        let mut text = [0; 8];
        for (to, from) in text.iter_mut().zip(word.bytes()) {
            *to = from;
        }
        self.step(Op::Say, 8, [0, u64::from_le_bytes(text), 0])
    }

    /// Runs machine code, which returns.
    pub fn call(&mut self, code: &[u8]) -> &mut Self {
        let at = crate::guest::CODE + self.code.len() as u64;
        self.code.extend_from_slice(code);
        self.step(Op::Call, 8, [at, 0, 0])
    }

    /// Does what `body` adds so often.
    pub fn again(&mut self, times: u32, body: impl FnOnce(&mut Self)) -> &mut Self {
        let from = self.steps.len();
        body(self);
        let back = ((self.steps.len() - from) * STEP_LEN) as u64;
        self.step(Op::Loop, 8, [back, 0, times.into()])
    }

    /// Powers off.
    pub fn end(&mut self) -> &mut Self {
        self.step(Op::End, 1, [0; 3])
    }

    /// The steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// As the guest reads them.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.steps.iter().flat_map(Step::bytes).collect()
    }

    /// The machine code that [`Op::Call`] steps go to, from [`crate::guest::CODE`] on.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// For people: how long it is.
    #[must_use]
    pub fn about(&self) -> String {
        format!("{} steps, {} bytes of code", self.steps.len(), self.code.len())
    }
}

impl Step {
    fn bytes(&self) -> [u8; STEP_LEN] {
        let head = u64::from(self.op as u8) | u64::from(self.size) << 8 | u64::from(self.count.max(1)) << 32;
        let ([a, b, c], [a_grow, b_grow]) = (self.words, self.grow);
        let mut bytes = [0; STEP_LEN];
        for (to, word) in bytes.chunks_exact_mut(8).zip([head, a, b, a_grow, b_grow, c]) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_lie_as_the_guest_reads_them() {
        let mut script = Script::default();
        script.many(Op::Out, 2, 7, [1, 2, 3], [4, 5]).again(9, |body| {
            body.say("ab").end();
        });
        let image = script.image();
        assert_eq!(image.len(), 4 * 48);
        assert_eq!(image.get(..8), Some(&[3, 2, 0, 0, 7, 0, 0, 0][..]));
        let words: Vec<u8> = [1_u64, 2, 4, 5, 3].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(image.get(8..48), Some(&words[..]));
        assert_eq!(script.steps().last().map(|step| step.words), Some([96, 0, 9]));
    }
}
