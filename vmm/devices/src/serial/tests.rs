use super::*;
use proptest::prelude::*;

#[test]
fn what_is_sent_comes_out() {
    let mut port = Serial::default();
    let sent: alloc::vec::Vec<u8> =
        b"boot\n".iter().filter_map(|byte| port.write(DATA, *byte).sent).collect();
    assert_eq!(sent, b"boot\n");
    assert_eq!(port.read(LSR), LSR_EMPTY);
}

#[test]
fn the_divisor_is_not_sent() {
    let mut port = Serial::default();
    port.write(LCR, LCR_DLAB | 3);
    assert_eq!(port.write(DATA, 1).sent, None);
    port.write(IER, 2);
    assert_eq!((port.read(DATA), port.read(IER)), (1, 2));
    port.write(LCR, 3);
    assert_eq!(port.read(IER), 0);
}

/// What Linux asks before it trusts the port with interrupts.
#[test]
fn the_transmitter_interrupts_again_when_it_is_allowed_again() {
    let mut port = Serial::default();
    for _ in 0..2 {
        assert!(port.write(IER, IER_EMPTY).raise);
        assert_eq!(port.read(IIR_FCR), IIR_EMPTY);
        assert_eq!(port.read(IIR_FCR), IIR_NONE);
        assert!(!port.write(IER, 0).raise);
    }
    port.write(IER, IER_EMPTY);
    assert!(port.write(DATA, b'x').raise, "a byte is gone at once");
}

#[test]
fn it_is_found_to_be_a_16550a() {
    let mut port = Serial::default();
    port.write(SCR, 0x5A);
    assert_eq!(port.read(SCR), 0x5A);
    port.write(MCR, MCR_LOOP | 0x0A);
    assert_eq!(port.read(MSR) & 0xF0, 0x90);
    port.write(MCR, 0);
    port.write(IIR_FCR, FCR_ENABLE);
    assert_eq!(port.read(IIR_FCR) >> 6, 3);
    port.write(LCR, 0xBF);
    assert_ne!(port.read(IIR_FCR), 0, "no enhanced features");
}

#[test]
fn input_waits_interrupts_and_is_bounded() {
    let mut port = Serial::default();
    assert_eq!(port.receive(b"ab"), (2, false));
    assert!(port.write(IER, IER_RECEIVED).raise);
    assert_eq!(port.read(IIR_FCR), IIR_RECEIVED);
    assert_eq!((port.read(DATA), port.read(LSR) & LSR_READY, port.read(DATA)), (b'a', LSR_READY, b'b'));
    assert_eq!(port.read(IIR_FCR), IIR_NONE);
    assert_eq!(port.receive(&[0; 100]), (INPUT_MAX, true));
    assert_eq!(port.receive(&[0; 100]), (0, false));
    port.write(IIR_FCR, FCR_CLEAR_INPUT);
    assert_eq!(port.read(LSR) & LSR_READY, 0);
}

proptest! {
    /// Whatever a guest does: the line is what the identification says, and memory is bounded.
    #[test]
    fn line_and_identification_agree(steps in prop::collection::vec((any::<bool>(), 0_u8..=9, any::<u8>()), 0..200)) {
        let mut port = Serial::default();
        for (write, register, value) in steps {
            let before = port.line();
            if write {
                let written = port.write(register, value);
                prop_assert!(!written.raise || port.line());
                prop_assert!(before || !port.line() || written.raise, "a rise is always told");
            } else {
                port.read(register);
                prop_assert!(before || !port.line(), "a read raises nothing");
            }
            prop_assert!(port.input.len() <= INPUT_MAX);
        }
    }
}
