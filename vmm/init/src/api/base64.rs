//! Base64, read only: error documents in trailers are in it. Pure.

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Runtimes differ in whether they pad; bits that belong to no byte are refused.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// The bytes, or nothing if it is not base64 of either alphabet.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let of = |alphabet: &Alphabet| GeneralPurpose::new(alphabet, CONFIG).decode(text).ok();
    of(&STANDARD).or_else(|| of(&URL_SAFE))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use proptest::prelude::*;

    #[test]
    fn table() {
        for (text, expect) in [
            ("", Some("")),
            ("Zg==", Some("f")),
            ("Zg", Some("f")),
            ("Zm8=", Some("fo")),
            ("Zm9v", Some("foo")),
            ("Pz8_", Some("???")),
            ("Pz8/", Some("???")),
            ("eyJhIjoiYiJ9", Some(r#"{"a":"b"}"#)),
            ("Zm9", None),
            ("Zg===", None),
            ("-/", None),
            ("{\"a\"}", None),
        ] {
            assert_eq!(super::decode(text), expect.map(|text| text.as_bytes().to_vec()), "{text}");
        }
    }

    proptest! {
        #[test]
        fn comes_back(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(super::decode(&STANDARD.encode(&bytes)), Some(bytes.clone()));
            prop_assert_eq!(super::decode(&URL_SAFE_NO_PAD.encode(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_judged(text in ".{0,40}") {
            let _ = super::decode(&text);
        }
    }
}
