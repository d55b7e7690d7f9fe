use super::*;
use crate::virtio::{F_EVENT_IDX, F_VERSION_1};
use proptest::prelude::*;

const OFFERED: u64 = F_VERSION_1 | F_EVENT_IDX | 1 << 5;

fn device() -> Transport {
    Transport::new(Identity {
        id: 2,
        features: OFFERED,
        queues: alloc::vec![256, 8],
        config: alloc::vec![7; 10].into(),
    })
}

fn get(device: &Transport, offset: u64) -> u32 {
    let mut word = [0; 4];
    device.read(offset, &mut word);
    u32::from_le_bytes(word)
}

fn set(device: &mut Transport, offset: u64, value: u32) -> Effect {
    device.write(offset, &value.to_le_bytes())
}

/// Walks to FEATURES_OK as a driver would; whether it sticks.
fn agree(device: &mut Transport, features: u64) -> bool {
    set(device, register::STATUS, 1);
    set(device, register::STATUS, 3);
    for selector in [0, 1] {
        set(device, register::DRIVER_FEATURES_SEL, selector);
        set(device, register::DRIVER_FEATURES, half(features, selector));
    }
    set(device, register::STATUS, 11);
    get(device, register::STATUS) == 11
}

fn describe(device: &mut Transport, queue: u32, size: u32, addresses: [u64; 3]) -> bool {
    set(device, register::QUEUE_SEL, queue);
    set(device, register::QUEUE_NUM, size);
    for (offset, address) in [0x80, 0x90, 0xA0].into_iter().zip(addresses) {
        set(device, offset, half(address, 0));
        set(device, offset + 4, half(address, 1));
    }
    set(device, register::QUEUE_READY, 1);
    get(device, register::QUEUE_READY) == 1
}

const AREAS: [u64; 3] = [0x1_0000_0000, 0x2000, 0x3000];

#[test]
fn a_driver_brings_it_up_twice() {
    let mut device = device();
    assert_eq!([get(&device, 0), get(&device, 4), get(&device, 8)], [MAGIC, 2, 2]);
    for _ in 0..2 {
        assert!(agree(&mut device, F_VERSION_1 | 1 << 5));
        assert_eq!(get(&device, register::QUEUE_NUM_MAX), 256);
        assert!(describe(&mut device, 1, 8, AREAS));
        let effect = set(&mut device, register::STATUS, 15);
        let frozen =
            QueueConfig { size: 8, ready: true, descriptors: AREAS[0], driver: AREAS[1], device: AREAS[2] };
        let unused = QueueConfig { size: 256, ..QueueConfig::default() };
        let queues = alloc::vec![unused, frozen];
        assert_eq!(effect, Effect::Activate { features: F_VERSION_1 | 1 << 5, queues });
        device.signals().interrupt.fetch_or(INTERRUPT_USED, Ordering::SeqCst);
        assert_eq!(get(&device, register::INTERRUPT_STATUS), 1);
        set(&mut device, register::INTERRUPT_ACK, 1);
        assert_eq!(get(&device, register::INTERRUPT_STATUS), 0);
        device.signals().needs_reset.store(true, Ordering::SeqCst);
        assert_eq!(get(&device, register::STATUS), 15 | NEEDS_RESET);
        assert_eq!(set(&mut device, register::STATUS, 0), Effect::Reset);
        assert_eq!((get(&device, register::STATUS), get(&device, register::QUEUE_READY)), (0, 0));
    }
}

#[test]
fn features_not_offered_or_the_legacy_interface_are_refused() {
    for bad in [0, 1 << 5, F_VERSION_1 | 1, u64::MAX] {
        assert!(!agree(&mut device(), bad), "{bad:#x}");
    }
    let mut device = device();
    set(&mut device, register::DEVICE_FEATURES_SEL, 1);
    assert_eq!(get(&device, register::DEVICE_FEATURES), 1);
    set(&mut device, register::DEVICE_FEATURES_SEL, 2);
    assert_eq!(get(&device, register::DEVICE_FEATURES), 0);
}

#[test]
fn status_has_one_way_only() {
    for steps in [&[2][..], &[8], &[15], &[1, 1 | 8], &[1, 3, 3 | 4], &[1, 3, 2], &[1, 3, 19]] {
        let mut device = device();
        let before = steps.len() - 1;
        for step in &steps[..before] {
            set(&mut device, register::STATUS, *step);
        }
        let was = get(&device, register::STATUS);
        assert_eq!(set(&mut device, register::STATUS, steps[before]), Effect::None);
        assert_eq!(get(&device, register::STATUS), was, "{steps:?}");
    }
    let mut device = device();
    set(&mut device, register::STATUS, 1 | FAILED);
    assert_eq!(get(&device, register::STATUS), 1 | FAILED);
}

#[test]
fn queues_that_break_a_rule_stay_unready() {
    for (queue, size, areas) in [
        (0, 0, AREAS),
        (0, 3, AREAS),
        (0, 512, AREAS),
        (1, 16, AREAS),
        (0, 0x1_0000, AREAS),
        (2, 8, AREAS),
        (u32::MAX, 8, AREAS),
        (0, 8, [8, 0x2000, 0x3000]),
        (0, 8, [0, 1, 0x3000]),
        (0, 8, [0, 0x2000, 2]),
        (0, 256, [u64::MAX - 0xF, 0x2000, 0x3000]),
        (0, 256, [0, u64::MAX - 1, 0x3000]),
        (0, 256, [0, 0x2000, u64::MAX - 3]),
    ] {
        let mut device = device();
        assert!(agree(&mut device, F_VERSION_1));
        assert!(!describe(&mut device, queue, size, areas), "{queue} {size} {areas:x?}");
    }
}

/// CVE-2026-5747: registers of a queue rewritten after DRIVER_OK.
#[test]
fn a_live_device_keeps_its_queues() {
    let mut device = device();
    assert!(agree(&mut device, F_VERSION_1) && describe(&mut device, 0, 8, AREAS));
    let before = device.queues.clone();
    assert!(matches!(set(&mut device, register::STATUS, 15), Effect::Activate { .. }));
    for offset in (0..0x100).step_by(4).filter(|offset| *offset != register::STATUS) {
        for value in [0, 1, 16, u32::MAX] {
            assert_eq!(set(&mut device, offset, value), Effect::None);
        }
        set(&mut device, register::QUEUE_SEL, 0);
    }
    assert_eq!((device.queues, device.driver_features), (before, F_VERSION_1));
}

#[test]
fn the_configuration_is_written_once_features_are_agreed() {
    let mut device = device();
    let write = |device: &mut Transport, offset, width: usize| device.write(offset, &[0; 8][..width]);
    assert_eq!(write(&mut device, CONFIG, 1), Effect::None);
    assert!(agree(&mut device, F_VERSION_1));
    assert_eq!(write(&mut device, CONFIG, 2), Effect::Configure);
    assert!(matches!(set(&mut device, register::STATUS, 15), Effect::Activate { .. }));
    assert!(device.signals().live.load(Ordering::SeqCst));
    assert_eq!(write(&mut device, u64::MAX, 8), Effect::Configure);
    assert_eq!(set(&mut device, register::STATUS, 0), Effect::Reset);
    assert!(!device.signals().live.load(Ordering::SeqCst));
    assert_eq!(write(&mut device, CONFIG, 4), Effect::None);
    let mut two = [9; 2];
    device.read(0, &mut two);
    assert_eq!(two, [0; 2], "registers are words");
}

/// The same in another device, written down and brought back.
fn again(device: &Transport) -> Transport {
    let state = device.state();
    assert!(state.is_sound(), "{state:?}");
    let mut other = self::device();
    let effect = other.resume(&state).unwrap();
    let works = state.is_live() && !state.needs_reset;
    let activates = Effect::Activate { features: state.driver_features, queues: state.queues.clone() };
    assert_eq!(effect, if works { activates } else { Effect::None });
    assert_eq!(other.state(), state);
    other
}

#[test]
fn another_devices_registers_are_refused() {
    let mut live = device();
    assert!(agree(&mut live, F_VERSION_1) && describe(&mut live, 1, 8, AREAS));
    let refused = |change: fn(&mut TransportState), expect: Mismatch| {
        let mut state = live.state();
        change(&mut state);
        let mut other = device();
        assert_eq!(other.resume(&state), Err(expect));
        assert_eq!(other.state(), device().state(), "nothing changed");
    };
    refused(|state| state.id = 3, Mismatch::Kind { was: 3, is: 2 });
    refused(|state| state.offered = F_VERSION_1, Mismatch::Features { was: F_VERSION_1, is: OFFERED });
    refused(|state| state.queues.truncate(1), Mismatch::Queues);
    refused(|state| state.queues[1].size = 16, Mismatch::Queues);
    refused(|state| state.queues[1].driver = 1, Mismatch::Queues);
    refused(|state| state.status = 3, Mismatch::Queues);
    refused(|state| state.status = 7, Mismatch::Queues);
    refused(|state| state.status |= NEEDS_RESET, Mismatch::Queues);
    refused(|state| state.driver_features = 0, Mismatch::Queues);
    refused(|state| state.interrupt = 4, Mismatch::Queues);
}

/// The states as they are drawn, by themselves: what a write to the status makes of one.
fn drawn(status: u32, agreed: bool, value: u32) -> u32 {
    let (state, failed) = (status & !FAILED, (status | value) & FAILED);
    let way = [0, 1, 3, 11, 15];
    let next = way.iter().skip_while(|at| **at != state).nth(1);
    match (value & !(FAILED | NEEDS_RESET), next) {
        _ if value == 0 => 0,
        (11, Some(11)) if !agreed => state | failed,
        (wanted, Some(next)) if wanted == *next => wanted | failed,
        _ => state | failed,
    }
}

proptest! {
    /// Any driver at all, and a device that breaks now and then: the status is the drawn one, and so is what is to be done.
    #[test]
    fn the_status_is_the_drawn_one(
        steps in prop::collection::vec(
            (prop_oneof![8 => 0_usize..5, 1 => Just(9)], prop_oneof![9 => Just(0_u32), 1 => Just(FAILED), 1 => any::<u32>()],
             prop_oneof![Just(OFFERED), Just(F_VERSION_1), Just(1 << 5), any::<u64>()], prop::bool::weighted(0.1)),
            0..60)
    ) {
        let mut device = device();
        let (mut status, mut features, mut broken) = (0, 0, false);
        for (at, bits, wish, breaks) in steps {
            for selector in [0, 1] {
                set(&mut device, register::DRIVER_FEATURES_SEL, selector);
                set(&mut device, register::DRIVER_FEATURES, half(wish, selector));
            }
            if status & !FAILED == 3 {
                features = wish;
            }
            if breaks {
                device.signals().needs_reset.store(true, Ordering::SeqCst);
                broken = true;
            }
            let value = [0, 1, 3, 11, 15].get(at).map_or(bits, |state| state | bits);
            let agreed = features & !OFFERED == 0 && features & F_VERSION_1 != 0;
            let next = drawn(status, agreed, value);
            let effect = set(&mut device, register::STATUS, value);
            if value == 0 {
                (features, broken) = (0, false);
                prop_assert_eq!(&effect, &Effect::Reset);
            } else if next & !FAILED == 15 && status & !FAILED != 15 {
                let live = matches!(&effect, Effect::Activate { features: taken, .. } if *taken == features);
                prop_assert!(live, "{:?}", effect);
            } else {
                prop_assert_eq!(&effect, &Effect::None);
            }
            status = next;
            let shown = status | if broken { NEEDS_RESET } else { 0 };
            prop_assert_eq!(get(&device, register::STATUS), shown);
            prop_assert_eq!(device.signals().live.load(Ordering::SeqCst), status & !FAILED == 15);
        }
    }

    /// Any driver: activation happens only on the drawn way, and only with sound queues.
    #[test]
    fn only_sound_queues_become_live(
        steps in prop::collection::vec(
            (prop_oneof![Just(register::STATUS), Just(register::QUEUE_READY), Just(register::QUEUE_NUM), Just(register::QUEUE_SEL), Just(register::DRIVER_FEATURES), Just(register::DRIVER_FEATURES_SEL), (0_u64..0x110)],
             prop_oneof![Just(0_u32), Just(1), Just(3), Just(8), Just(11), Just(15), any::<u32>()], 0_usize..9),
            0..120)
    ) {
        let mut device = device();
        let mut live: Option<Vec<QueueConfig>> = None;
        for (offset, value, width) in steps {
            let bytes = [value.to_le_bytes(), [0; 4]].concat();
            let effect = if width < 7 { set(&mut device, offset, value) } else { device.write(offset, &bytes[..width]) };
            match effect {
                Effect::Activate { features, queues } => {
                    prop_assert!(live.is_none(), "only a reset leaves the live state");
                    prop_assert!(features & !OFFERED == 0 && features & F_VERSION_1 != 0);
                    for (queue, max) in queues.iter().zip([256, 8]) {
                        prop_assert!(!queue.ready || queue.is_sound(max));
                    }
                    live = Some(queues);
                }
                Effect::Reset => live = None,
                Effect::Configure => prop_assert!(offset >= CONFIG),
                Effect::None => {}
            }
            if let Some(queues) = &live {
                prop_assert_eq!(queues, &device.queues);
            }
            // Written down and brought back at every step, it goes on as if nothing had been.
            device = again(&device);
            let mut bytes = [0; 8];
            device.read(offset, &mut bytes[..width.min(8)]);
        }
    }
}
