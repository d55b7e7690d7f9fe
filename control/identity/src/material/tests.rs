use super::*;
use crate::{HostId, ensure_local_at};
use proptest::prelude::*;
use std::sync::OnceLock;

/// One good set of a worker's files, made once.
fn good() -> &'static (String, String, String) {
    static GOOD: OnceLock<(String, String, String)> = OnceLock::new();
    GOOD.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        ensure_local_at(dir.path(), Some(HostId::from_any("h1")), SystemTime::now()).unwrap();
        let read = AsRead::read(dir.path(), Service::Agent).unwrap();
        (read.ca, read.certificate, read.key.to_string())
    })
}

fn judged(ca: &str, certificate: &str, key: &str) -> Result<Material, Unfit> {
    let key = Zeroizing::new(key.to_owned());
    Material::judge(&AsRead { ca: ca.into(), certificate: certificate.into(), key }, Service::Agent)
}

#[test]
fn what_belongs_together_is_judged_good_in_its_time() {
    let (ca, certificate, key) = good();
    let material = judged(ca, certificate, key).unwrap();
    assert_eq!(material.peer.uri(), "warren://worker/h1");
    assert_eq!(material.in_time(SystemTime::now()), Ok(()));
    assert_eq!(material.in_time(material.not_after + Duration::from_secs(1)), Err(Unfit::NotNow));
    assert_eq!(material.in_time(material.not_before - Duration::from_secs(1)), Err(Unfit::NotNow));
    assert_eq!(judged(ca, certificate, key).unwrap().serial, material.serial);
    assert!(matches!(judged(&ca.repeat(MAX_CAS + 1), certificate, key), Err(Unfit::NoCa)));
    assert!(judged(&ca.repeat(MAX_CAS), certificate, key).is_ok());
}

proptest! {
    /// Whatever becomes of the files, they are refused by name, or still those of the same worker.
    #[test]
    fn altered_files_are_refused_or_say_the_same(which in 0..3_usize, at in 0..4096_usize, to in any::<char>(), cut in any::<bool>()) {
        let (ca, certificate, key) = good();
        let mut all = [ca.clone(), certificate.clone(), key.clone()];
        let text = &mut all[which];
        let at = text.char_indices().map(|(at, _)| at).nth(at % text.len()).unwrap();
        text.truncate(if cut { at } else { text.len() });
        if !cut {
            text.replace_range(at..=at, &to.to_string());
        }
        let [ca, certificate, key] = &all;
        match judged(ca, certificate, key) {
            Ok(material) => prop_assert_eq!(material.peer.uri(), "warren://worker/h1"),
            Err(why) => prop_assert!(!why.to_string().is_empty()),
        }
    }
}
