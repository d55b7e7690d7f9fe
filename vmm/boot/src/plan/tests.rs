extern crate std;
use super::*;
use proptest::prelude::*;
use std::vec;

const MIB: u64 = 1 << 20;

fn plan(low_len: u64, code: u64, task: u64, heap: u64) -> Result<Plan, PlanError> {
    Base::new(0x30_1000, low_len)?.place(Sizes { code, task, heap }, low_len)
}

#[test]
fn a_small_function_needs_no_second_slot() {
    let plan = plan(256 * MIB, 3 * MIB, 0, 128 * MIB).unwrap();
    assert_eq!((plan.high_len, plan.heap.len(), plan.task), (0, 2, None));
}

#[test]
fn refusals() {
    let size = |result: Result<Plan, PlanError>| matches!(result, Err(PlanError::Size { .. }));
    assert!(size(plan(256 * MIB, 0, 0, MIB)));
    assert!(size(plan(256 * MIB, CODE.max_len + 1, 0, MIB)));
    assert!(size(plan(256 * MIB, 1, TASK.max_len + 1, MIB)));
    assert!(size(plan(256 * MIB, 1, 0, 0)));
    assert!(size(plan(256 * MIB, 1, 0, u64::MAX)));
    for class in [0, 4 * MIB, LOW_MAX + 2 * MIB, 256 * MIB + 4096] {
        assert!(matches!(plan(class, 1, 0, 1), Err(PlanError::Class { .. })), "{class}");
    }
}

proptest! {
    /// Nothing overlaps in guest-physical memory, everything lies in a bank, and virtual addresses are whole windows.
    #[test]
    fn placement_is_sound(
        class in 16_u64..1536, code in 1..=CODE.max_len, task in 0..=TASK.max_len, heap in 1..=HEAP.max_len,
    ) {
        let low_len = class * 2 * MIB;
        let base = Base::new(0x30_1000, low_len).unwrap();
        let plan = base.place(Sizes { code, task, heap }, low_len).unwrap();
        let mut all = vec![base.mailbox, base.stack, plan.code];
        all.extend(plan.task);
        all.extend(&plan.heap);
        all.sort_by_key(|m| m.gpa);
        for pair in all.windows(2) {
            prop_assert!(pair[0].gpa + pair[0].len <= pair[1].gpa, "{pair:x?}");
        }
        for m in &all {
            let low = m.gpa >= 0x30_1000 && m.gpa + m.len <= low_len;
            let high = m.gpa >= HIGH_BASE && m.gpa + m.len <= HIGH_BASE + plan.high_len;
            prop_assert!(low || high, "{m:x?}");
            prop_assert_eq!(m.gpa % LARGE_PAGE_SIZE, 0);
        }
        prop_assert_eq!(plan.heap.iter().map(|m| m.len).sum::<u64>(), page_up(heap));
        prop_assert_eq!(plan.heap[0].va, HEAP.base);
        prop_assert!(plan.heap.windows(2).all(|w| w[0].va + w[0].len == w[1].va));
    }
}
