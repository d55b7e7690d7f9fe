//! Arguments, environment, clocks, randomness, exit; and the sockets and signals a sandbox does not have.

use crate::{Answer, Errno, Halt, Host, Memory, Stop, Wasi, abi::Clock};
use alloc::string::String;

impl<H: Host> Wasi<H> {
    /// `args_get`.
    pub fn args_get(&mut self, memory: &mut Memory<'_>, argv: u32, buffer: u32) -> Answer {
        write_strings(memory, argv, buffer, self.args.iter().map(String::as_bytes))
    }

    /// `args_sizes_get`.
    pub fn args_sizes_get(&mut self, memory: &mut Memory<'_>, count: u32, size: u32) -> Answer {
        write_sizes(memory, count, size, self.args.iter().map(String::as_bytes))
    }

    /// `environ_get`.
    pub fn environ_get(&mut self, memory: &mut Memory<'_>, environ: u32, buffer: u32) -> Answer {
        write_strings(memory, environ, buffer, self.env.iter().map(String::as_bytes))
    }

    /// `environ_sizes_get`.
    pub fn environ_sizes_get(&mut self, memory: &mut Memory<'_>, count: u32, size: u32) -> Answer {
        write_sizes(memory, count, size, self.env.iter().map(String::as_bytes))
    }

    /// `clock_res_get`: a nanosecond, as the counter is finer.
    pub fn clock_res_get(&mut self, memory: &mut Memory<'_>, clock: u32, resolution: u32) -> Answer {
        clock_from(clock)?;
        Ok(memory.write_u64(resolution, 1)?)
    }

    /// `clock_time_get`.
    pub fn clock_time_get(
        &mut self,
        memory: &mut Memory<'_>,
        clock: u32,
        _precision: u64,
        time: u32,
    ) -> Answer {
        let now = self.clock_ns(clock_from(clock)?);
        Ok(memory.write_u64(time, now)?)
    }

    /// `random_get`.
    pub fn random_get(&mut self, memory: &mut Memory<'_>, buffer: u32, len: u32) -> Answer {
        self.host.fill_random(memory.slice_mut(buffer, len)?);
        Ok(())
    }

    /// `proc_exit`.
    pub fn proc_exit(&mut self, code: u32) -> Answer {
        Err(Stop::Halt(Halt::Exit(code)))
    }

    /// `proc_raise`: there are no signals.
    pub fn proc_raise(&mut self, _memory: &mut Memory<'_>, _signal: u32) -> Answer {
        Err(Errno::NotSup.into())
    }

    /// `sched_yield`.
    pub fn sched_yield(&mut self, _memory: &mut Memory<'_>) -> Answer {
        self.host.pause();
        Ok(())
    }

    /// `sock_accept`: no descriptor is a socket.
    pub fn sock_accept(&mut self, _memory: &mut Memory<'_>, fd: u32, _flags: u32, _ro_fd: u32) -> Answer {
        self.no_socket(fd)
    }

    /// `sock_recv`: no descriptor is a socket.
    #[expect(clippy::too_many_arguments, reason = "the interface's own signature")]
    pub fn sock_recv(
        &mut self,
        _memory: &mut Memory<'_>,
        fd: u32,
        _iovs: u32,
        _count: u32,
        _flags: u32,
        _ro_len: u32,
        _ro_flags: u32,
    ) -> Answer {
        self.no_socket(fd)
    }

    /// `sock_send`: no descriptor is a socket.
    pub fn sock_send(
        &mut self,
        _memory: &mut Memory<'_>,
        fd: u32,
        _iovs: u32,
        _count: u32,
        _flags: u32,
        _so_len: u32,
    ) -> Answer {
        self.no_socket(fd)
    }

    /// `sock_shutdown`: no descriptor is a socket.
    pub fn sock_shutdown(&mut self, _memory: &mut Memory<'_>, fd: u32, _how: u32) -> Answer {
        self.no_socket(fd)
    }

    pub(super) fn clock_ns(&mut self, clock: Clock) -> u64 {
        match clock {
            Clock::Realtime => self.host.wall_ns(),
            Clock::Monotonic => self.host.monotonic_ns(),
        }
    }

    fn no_socket(&self, fd: u32) -> Answer {
        self.table.get(fd)?;
        Err(Errno::NotSock.into())
    }
}

/// A `clockid`; the CPU-time clocks are not kept.
pub(super) const fn clock_from(raw: u32) -> Result<Clock, Errno> {
    match raw {
        0 => Ok(Clock::Realtime),
        1 => Ok(Clock::Monotonic),
        2 | 3 => Err(Errno::NotSup),
        _ => Err(Errno::Inval),
    }
}

/// Zero-terminated strings at `buffer`, their addresses at `array`.
fn write_strings<'s>(
    memory: &mut Memory<'_>,
    mut array: u32,
    mut buffer: u32,
    strings: impl Iterator<Item = &'s [u8]>,
) -> Answer {
    for text in strings {
        memory.write_u32(array, buffer)?;
        memory.write(buffer, text)?;
        let len = u32::try_from(text.len()).map_err(|_| Errno::Overflow)?;
        let terminator = buffer.checked_add(len).ok_or(Errno::Fault)?;
        memory.write(terminator, &[0])?;
        buffer = terminator.checked_add(1).ok_or(Errno::Fault)?;
        array = array.checked_add(4).ok_or(Errno::Fault)?;
    }
    Ok(())
}

/// How many strings, and how many bytes with their terminators.
fn write_sizes<'s>(
    memory: &mut Memory<'_>,
    count_at: u32,
    size_at: u32,
    strings: impl Iterator<Item = &'s [u8]>,
) -> Answer {
    let (count, size) =
        strings.fold((0_usize, 0_usize), |(count, size), text| (count + 1, size + text.len() + 1));
    memory.write_u32(count_at, u32::try_from(count).map_err(|_| Errno::Overflow)?)?;
    memory.write_u32(size_at, u32::try_from(size).map_err(|_| Errno::Overflow)?)?;
    Ok(())
}
