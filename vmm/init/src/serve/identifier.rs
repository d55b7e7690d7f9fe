//! Random identifiers in the form of a version 4 UUID.

/// A new one.
pub(crate) fn new() -> String {
    let mut bytes = [0_u8; 16];
    // The kernel's pool is ready before any program runs; were it not, an identifier would still be unlike the last.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let number = u128::from_be_bytes(bytes);
    let number = number & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let text = format!("{number:032x}");
    let piece = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    [piece(0, 8), piece(8, 12), piece(12, 16), piece(16, 20), piece(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_are_version_4_and_differ() {
        let (one, other) = (super::new(), super::new());
        assert_ne!(one, other);
        let letters: Vec<char> = one.chars().collect();
        assert_eq!((letters.len(), letters[14], letters[23]), (36, '4', '-'));
        assert!("89ab".contains(letters[19]), "{one}");
    }
}
