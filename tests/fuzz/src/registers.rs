//! The registers of a virtio-mmio device under a driver without manners.

use crate::Input;
use warren_devices::virtio::Config;
use warren_devices::virtio::transport::{Effect, Identity, Transport};

const QUEUES: [u16; 2] = [256, 8];

/// Any accesses of any width at any offset: what gets active was judged, and nothing changes without a reset.
pub(crate) fn registers(bytes: &[u8]) {
    let mut input = Input(bytes);
    let offered = input.long();
    let mut config = Config::writable(vec![7; 60], 20..30);
    let identity = Identity { id: 2, features: offered, queues: QUEUES.to_vec(), config: config.clone() };
    let mut device = Transport::new(identity);
    let mut active = false;
    while !input.is_empty() {
        let (what, offset) = (input.byte(), u64::from(input.half()) & 0x3FF);
        let width = [1, 2, 4, 8][usize::from(what >> 1 & 3)];
        if what & 1 == 0 {
            let mut read = [0; 8];
            if !config.read(offset, &mut read[..width]) {
                device.read(offset, &mut read[..width]);
            }
            continue;
        }
        let written = input.take::<8>();
        match device.write(offset, &written[..width]) {
            Effect::None => {}
            Effect::Reset => {
                config.reset();
                active = false;
            }
            Effect::Configure => {
                config.write(offset, &written[..width]);
                assert_eq!(
                    (config.field(0), config.field(30)),
                    ([7; 20], [7; 30]),
                    "the device's own fields"
                );
            }
            Effect::Activate { features, queues } => {
                assert!(!active, "it is active already");
                active = true;
                assert_eq!(features & !offered, 0, "what was not offered");
                assert_eq!(queues.len(), QUEUES.len());
                for (queue, max) in queues.iter().zip(QUEUES).filter(|(queue, _)| queue.ready) {
                    assert!(queue.size.is_power_of_two() && queue.size <= max);
                    assert!(queue.descriptors.is_multiple_of(16) && queue.driver.is_multiple_of(2));
                    assert!(queue.device.is_multiple_of(4));
                }
            }
        }
    }
}
