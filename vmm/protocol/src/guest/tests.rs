use super::*;
use crate::frame::{PREFIX, decode, encode, read_len};
use alloc::{string::String, vec};
use proptest::prelude::*;

/// Through the wire and back.
fn same<T>(message: &T)
where
    T: Serialize + serde::de::DeserializeOwned + PartialEq + core::fmt::Debug,
{
    let bytes = encode(message).unwrap();
    let (prefix, body) = bytes.split_at(PREFIX);
    assert_eq!(read_len(prefix.try_into().unwrap()), Ok(body.len()));
    assert_eq!(decode::<T>(body).as_ref(), Ok(message));
}

/// A value that its bounded type must not take off the wire, beside one that it takes.
fn bound<T, R>(takes: R, refuses: R)
where
    T: serde::de::DeserializeOwned,
    R: Serialize,
{
    let decodes = |raw: &R| decode::<T>(&encode(raw).unwrap()[PREFIX..]).is_ok();
    assert!(decodes(&takes));
    assert!(!decodes(&refuses));
}

#[test]
fn bounds_hold_on_the_wire() {
    bound::<Text<3>, _>(String::from("abc"), String::from("abcd"));
    bound::<Text<3>, _>("ab", "a\0");
    bound::<LogBytes, _>(vec![7_u8; LOG_MAX], vec![7_u8; LOG_MAX + 1]);
    bound::<Millis, _>(1_u32, 0);
    bound::<Millis, _>(Millis::MAX, Millis::MAX + 1);
    bound::<Mib, _>(Mib::MAX, Mib::MAX + 1);
    let pair = |name: &str, len: usize| vec![(String::from(name), "v".repeat(len))];
    bound::<Environment, _>(pair("_A9z", 5), pair("9A", 5));
    bound::<Environment, _>(pair("A", Environment::MAX_BYTES - 1), pair("A", Environment::MAX_BYTES));
    bound::<Environment, _>(pair("A", 0), pair("", 0));
    bound::<Environment, _>(pair("A", 0), pair("A=B", 0));
    bound::<Environment, _>(vec![("A", "b")], vec![("A", "b\0")]);
    let many = |count| vec![("A", ""); count];
    bound::<Environment, _>(many(Environment::MAX_ENTRIES), many(Environment::MAX_ENTRIES + 1));
}

#[test]
fn text_is_cut_between_characters() {
    for (text, expect) in [("abcd", "abc"), ("aäö", "aä"), ("ääx", "ä"), ("a\0b", "a b"), ("", "")] {
        assert_eq!(Text::<3>::cut(text).as_str(), expect, "{text:?}");
    }
}

#[test]
fn a_largest_configuration_fits_a_message() {
    let mut config = GuestConfig::of(Text::cut(&"f".repeat(256)));
    config.env = vec![(String::from("A"), "v".repeat(Environment::MAX_BYTES - 1))].try_into().unwrap();
    config.entrypoint = vec![Text::cut(&"a".repeat(4096)); 8];
    same(&GuestRequest::Configure(Box::new(config)));
}

prop_compose! {
    fn environment()(pairs in prop::collection::vec(("[A-Za-z_][A-Za-z0-9_]{0,20}", "[^\0]{0,20}"), 0..20)) -> Environment {
        pairs.try_into().unwrap()
    }
}

prop_compose! {
    fn config()(
        texts in prop::array::uniform4("[^\0]{0,16}"),
        env in environment(),
        numbers in (1..=Mib::MAX, 1..=Millis::MAX, any::<u64>()),
        seed in any::<[u8; 32]>(),
        network in prop::option::of((any::<[u8; 4]>(), 0..=32_u8, prop::collection::vec(any::<[u8; 4]>(), 0..4))),
    ) -> GuestConfig {
        let [function, handler, runtime, stream] = texts;
        let network = network.map(|(address, prefix, nameservers)| {
            Network { address, prefix, gateway: address, nameservers }
        });
        GuestConfig {
            handler: Text::cut(&handler),
            runtime: Text::cut(&runtime),
            log_stream: Text::cut(&stream),
            env,
            tmp: numbers.0.try_into().unwrap(),
            timeout: numbers.1.try_into().unwrap(),
            task_len: numbers.2,
            seed,
            network,
            ..GuestConfig::of(Text::cut(&function))
        }
    }
}

proptest! {
    #[test]
    fn requests_come_through(config in config(), id in "[a-z0-9/.-]{0,64}", context: Vec<u8>, numbers: (u32, u32)) {
        same(&GuestRequest::Configure(Box::new(config)));
        same(&GuestRequest::Invoke(InvokeRequest { id, context, timeout_ms: numbers.0, payload_len: numbers.1 }));
        same(&GuestRequest::Shutdown);
        same(&GuestRequest::HoldStill);
    }

    #[test]
    fn what_a_copy_is_told_comes_through(generation: u128, name in "[^\0]{0,100}", wall_unix_ns: u64, seed: [u8; 32]) {
        let sandbox = Text::cut(&name);
        let restored = Restored { version: GUEST_VERSION, generation, sandbox, wall_unix_ns, seed };
        same(&GuestRequest::Restored(Box::new(restored)));
    }

    #[test]
    fn replies_come_through(log: Vec<u8>, init_us: u64, text in "[^\0]{0,300}") {
        same(&GuestReply::Log(log.try_into().unwrap()));
        same(&GuestReply::Ready { init_us });
        same(&GuestReply::Still { held: init_us % 2 == 0 });
        same(&GuestReply::Acknowledged);
        let error = InitError { failure: InitFailure::Exited, error_type: Text::cut(&text), message: Text::cut(&text) };
        same(&GuestReply::InitFailed { init_us, error });
    }

    /// What decodes keeps its bounds, whatever the bytes were; nothing panics.
    #[test]
    fn any_bytes_decode_within_bounds_or_not_at_all(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(GuestRequest::Configure(config)) = decode(&bytes) {
            let names = config.env.iter().all(|(name, _)| !name.is_empty() && !name.contains('='));
            prop_assert!(names && config.function.as_str().len() <= 256 && config.tmp.get() <= Mib::MAX);
        }
        if let Ok(GuestRequest::Restored(restored)) = decode(&bytes) {
            prop_assert!(restored.sandbox.as_str().len() <= 64);
        }
        if let Ok(GuestReply::InitFailed { error, .. }) = decode(&bytes) {
            prop_assert!(error.error_type.as_str().len() <= 256);
        }
    }
}
