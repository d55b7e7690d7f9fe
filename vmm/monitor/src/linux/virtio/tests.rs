//! A driver in a few lines against whole devices: registers, rings, and what is behind them. Each case runs several times:
//! fresh, after a reset, after a reset in the middle of it, and in a device that was written down and brought back.

use super::*;
use crate::linux::interrupts::tests::counted;
use warren_devices::virtio::{F_EVENT_IDX, F_VERSION_1};
use warren_state::linux::device::VirtioState;

mod balloons;
mod disks;
mod frames;
mod hostile;
mod memories;
mod streams;

const STATUS: u64 = 0x70;
const DESCRIPTORS: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
/// From one queue's areas to the next one's.
const QUEUE_STRIDE: u64 = 0x1_8000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const SIZE: u16 = 8;

/// Who works on a device's queues.
trait Serve {
    fn serve(&mut self, device: &Device);
}

impl<B: Backend> Serve for B {
    fn serve(&mut self, device: &Device) {
        for queue in 0..device.doorbells().len() {
            let _ = device.serve(queue, self);
        }
    }
}

impl Serve for vsock::Vsock {
    fn serve(&mut self, device: &Device) {
        while device.step(|queues, ram| self.step(queues, ram)) != Step::Idle {}
    }
}

impl Serve for net::Net {
    fn serve(&mut self, device: &Device) {
        while device.step(|queues, ram| self.step(queues, ram)) != Step::Idle {}
    }
}

/// A driver of one device.
struct Driver<S> {
    device: Arc<Device>,
    identity: Identity,
    front: S,
    ram: Ram,
    features: u64,
    /// Requests made available, by queue.
    made: Vec<u16>,
    /// Requests that came back and were looked at, by queue.
    seen: Vec<u16>,
}

/// The device, memory, and what the driver made available and saw come back.
type WrittenDown = (VirtioState, Vec<u8>, Vec<u16>, Vec<u16>);

impl<S: Serve> Driver<S> {
    fn new(identity: Identity, front: S) -> Self {
        Self::over(Ram::detached(0, 0x10_0000).unwrap(), identity, |_| front)
    }

    fn over(ram: Ram, identity: Identity, front: impl FnOnce(&Arc<Device>) -> S) -> Self {
        let queues = identity.queues.len();
        let features = F_VERSION_1 | F_EVENT_IDX;
        let device = Self::device(&identity, &ram);
        let front = front(&device);
        Self { device, identity, front, ram, features, made: vec![0; queues], seen: vec![0; queues] }
    }

    fn device(identity: &Identity, ram: &Ram) -> Arc<Device> {
        let bell = |_| EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let (lines, _) = counted(1);
        let bells = identity.queues.iter().map(bell).collect();
        Arc::new(Device::new("test".into(), identity.clone(), lines.line(0), bells, ram.clone()))
    }

    /// Written down and brought back: the driver notices nothing.
    fn reborn(&mut self) {
        assert!(self.device.come_to_rest(u64::MAX));
        let state = self.device.state();
        assert_eq!(self.device.step(|_, _| panic!("it is at rest")), Step::Idle);
        self.device = Self::device(&self.identity, &self.ram);
        self.device.resume(&state).unwrap();
        assert_eq!(self.device.state(), state);
    }

    /// Device, memory and driver as they stand.
    fn written_down(&self) -> WrittenDown {
        assert!(self.device.come_to_rest(u64::MAX));
        let state = self.device.state();
        self.device.go_on();
        (state, self.bytes(0, 0x10_0000), self.made.clone(), self.seen.clone())
    }

    /// All of it as it stood then, in the same device.
    fn put_back(&mut self, (state, memory, made, seen): &WrittenDown) {
        assert!(self.device.come_to_rest(u64::MAX));
        let answered = self.device.ask_to_begin_again();
        self.serve();
        answered.try_recv().unwrap().unwrap();
        self.ram.put(0, memory).unwrap();
        self.device.put_back(state).unwrap();
        assert_eq!(self.device.state(), *state);
        self.serve();
        self.device.go_on();
        (self.made, self.seen) = (made.clone(), seen.clone());
    }

    fn set(&self, offset: u64, value: u32) {
        self.device.write(offset, &value.to_le_bytes());
    }

    fn get(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.device.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    fn serve(&mut self) {
        self.front.serve(&self.device);
    }

    fn bring_up(&mut self) {
        self.set(STATUS, 0);
        self.set(STATUS, 1);
        self.set(STATUS, 3);
        for half in [0, 1] {
            self.set(0x24, half);
            self.set(0x20, u32::try_from(self.features >> (32 * half) & 0xFFFF_FFFF).unwrap());
        }
        self.set(STATUS, 11);
        for queue in 0..self.made.len() {
            (self.made[queue], self.seen[queue]) = (0, 0);
            self.set(0x30, u32::try_from(queue).unwrap());
            let at = |area| area + queue as u64 * QUEUE_STRIDE;
            for area in [DESCRIPTORS, AVAILABLE, USED] {
                self.ram.put(at(area), &[0; 0x200]).unwrap();
            }
            for (offset, value) in [
                (0x38, u64::from(SIZE)),
                (0x80, at(DESCRIPTORS)),
                (0x90, at(AVAILABLE)),
                (0xA0, at(USED)),
                (0x44, 1),
            ] {
                self.set(offset, u32::try_from(value).unwrap());
            }
        }
        self.set(STATUS, 15);
        assert_eq!(self.get(STATUS), 15);
    }

    /// Makes a request available; pieces are address, length, and whether the device writes. It takes the descriptors
    /// from `first` on.
    fn offer_at(&mut self, queue: usize, first: u16, pieces: &[(u64, u32, bool)]) {
        let base = queue as u64 * QUEUE_STRIDE;
        for (at, (gpa, len, write)) in (first..).zip(pieces) {
            let last = usize::from(at - first) + 1 == pieces.len();
            let flags = if last { 0 } else { NEXT } | if *write { WRITE } else { 0 };
            let fields: [&[u8]; 4] =
                [&gpa.to_le_bytes(), &len.to_le_bytes(), &flags.to_le_bytes(), &(at + 1).to_le_bytes()];
            self.ram.put(base + DESCRIPTORS + u64::from(at) * 16, &fields.concat()).unwrap();
        }
        let made = self.made[queue];
        let ring = base + AVAILABLE;
        self.ram.put(ring + 4 + u64::from(made % SIZE) * 2, &first.to_le_bytes()).unwrap();
        // Told of the very next one (VIRTIO_F_EVENT_IDX).
        self.ram.put(ring + 4 + u64::from(SIZE) * 2, &made.to_le_bytes()).unwrap();
        self.made[queue] = made + 1;
        self.ram.put(ring + 2, &(made + 1).to_le_bytes()).unwrap();
    }

    fn offer(&mut self, pieces: &[(u64, u32, bool)]) {
        self.offer_at(0, 0, pieces);
    }

    /// Requests that came back.
    fn used(&self, queue: usize) -> u16 {
        let mut index = [0; 2];
        self.ram.get(queue as u64 * QUEUE_STRIDE + USED + 2, &mut index).unwrap();
        u16::from_le_bytes(index)
    }

    /// Bytes that the device says it wrote into a request that came back.
    fn written(&self, queue: usize, number: u16) -> u32 {
        let mut len = [0; 4];
        let entry = USED + 4 + u64::from(number % SIZE) * 8;
        self.ram.get(queue as u64 * QUEUE_STRIDE + entry + 4, &mut len).unwrap();
        u32::from_le_bytes(len)
    }

    /// Offers a request and lets the worker run: bytes that the device says it wrote.
    fn ask(&mut self, pieces: &[(u64, u32, bool)]) -> u32 {
        self.offer(pieces);
        self.serve();
        assert_eq!(self.used(0), self.made[0], "the request came back");
        assert_eq!(self.get(0x60) & 1, 1, "and was told");
        self.set(0x64, 1);
        self.written(0, self.made[0] - 1)
    }

    fn bytes(&self, gpa: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.ram.get(gpa, &mut bytes).unwrap();
        bytes
    }
}

/// Fresh, after a reset, after a reset with a request on its way; and in a second life, where nothing that works on a device
/// knows it by itself.
fn three_times<S: Serve>(driver: &mut Driver<S>, mut case: impl FnMut(&mut Driver<S>)) {
    driver.bring_up();
    case(driver);
    driver.bring_up();
    case(driver);
    driver.offer(&[(0x4000, 16, false)]);
    driver.set(STATUS, 0);
    driver.serve();
    driver.bring_up();
    case(driver);
    if ![warren_devices::virtio::balloon::ID, warren_devices::virtio::mem::ID].contains(&driver.identity.id) {
        driver.bring_up();
        driver.reborn();
        case(driver);
        driver.reborn();
        driver.bring_up();
        case(driver);
    }
}

#[test]
fn what_is_done_is_told_at_the_last_of_several_or_soon() {
    let mut queues = Queues::default();
    let soon = 10 + UNTOLD_NS;
    // Something was done; it took long; when; whether the guest is told.
    for (at, (done, slow, now, told)) in [
        (false, false, 0, false),
        (true, false, 10, false),
        (true, false, soon - 1, false),
        (true, false, soon, true),
        (false, false, soon, false),
        (true, false, soon, false),
        (false, false, soon, true),
        (false, false, soon, false),
        (true, true, soon, true),
        (true, false, soon, false),
    ]
    .into_iter()
    .enumerate()
    {
        queues.slow = slow;
        assert_eq!(queues.is_due(done, now), told, "step {at}");
    }
    // What was taken away is nobody's any more.
    queues.take_away();
    assert!(!queues.is_due(false, soon));
}
