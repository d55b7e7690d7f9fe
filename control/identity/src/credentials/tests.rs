use super::*;
use crate::{HostId, ensure_local_at, files};
use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};
use tempfile::TempDir;

const AGENT: Service = Service::Agent;

/// An identity directory of a host of that name.
fn identity(host: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    made_at(dir.path(), host, SystemTime::now());
    dir
}

fn made_at(dir: &Path, host: &str, now: SystemTime) {
    ensure_local_at(dir, Some(HostId::new(host).unwrap()), now).unwrap();
}

/// Makes the services' certificates anew, by the CA that there is.
fn renew(dir: &Path, host: &str) {
    for name in ["agent.pem", "control.pem"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    made_at(dir, host, SystemTime::now());
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

/// Looks until the files rest.
fn look(credentials: &Credentials) -> Looked {
    match credentials.look(SystemTime::now()) {
        Looked::Settling => credentials.look(SystemTime::now()),
        seen => seen,
    }
}

fn refused(credentials: &Credentials) -> (IdentityError, bool) {
    match look(credentials) {
        Looked::Refused { why, news } => (why, news),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn renewed_files_are_taken_up_once_they_rest() {
    let dir = identity("h1");
    let credentials = Credentials::load(dir.path(), AGENT).unwrap();
    let (first, old) = (credentials.serial(), credentials.client());
    assert!(matches!(credentials.look(SystemTime::now()), Looked::Same));
    for round in 1..=3 {
        renew(dir.path(), "h1");
        assert!(
            matches!(credentials.look(SystemTime::now()), Looked::Settling),
            "they have just been written"
        );
        assert_eq!(credentials.generation(), round - 1);
        let Looked::TakenUp { serial, .. } = credentials.look(SystemTime::now()) else {
            panic!("not taken up")
        };
        assert_eq!((credentials.serial(), credentials.generation()), (serial, round));
        assert!(matches!(credentials.look(SystemTime::now()), Looked::Same));
    }
    assert_ne!(credentials.serial(), first);
    assert!(!Arc::ptr_eq(&credentials.client(), &old), "what was resumable went with the certificate");
}

#[test]
fn files_of_no_use_are_told_once_and_the_ones_before_stay() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str); 10] = [
        (
            "half a certificate",
            |dir| {
                let whole = read(dir, "agent.pem");
                files::write(dir, "agent.pem", &whole[..whole.len() / 2]).unwrap();
            },
            "the certificate file holds no certificate, or is cut short",
        ),
        ("an empty certificate", |dir| files::write(dir, "agent.pem", "").unwrap(), "holds no certificate"),
        (
            "half a key",
            |dir| {
                let whole = read(dir, "agent.key");
                files::write(dir, "agent.key", &whole[..whole.len() / 2]).unwrap();
            },
            "the key file holds no private key, or is cut short",
        ),
        (
            "another's key",
            |dir| files::write(dir, "agent.key", &read(dir, "control.key")).unwrap(),
            "the key is not the certificate's",
        ),
        (
            "control's pair",
            |dir| {
                for end in ["pem", "key"] {
                    files::write(dir, &format!("agent.{end}"), &read(dir, &format!("control.{end}")))
                        .unwrap();
                }
            },
            "the certificate is of warren://control, and not of a worker",
        ),
        (
            "another host's pair",
            |dir| {
                fs::remove_file(dir.join("agent.pem")).unwrap();
                made_at(dir, "h2", SystemTime::now());
            },
            "the certificate is of warren://worker/h2, and not of warren://worker/h1",
        ),
        (
            "a pair of another CA",
            |dir| {
                let other = identity("h1");
                for name in ["agent.pem", "agent.key"] {
                    files::write(dir, name, &read(other.path(), name)).unwrap();
                }
            },
            "the certificate is not one of the CA's: ",
        ),
        (
            "everything of another CA",
            |dir| {
                let other = identity("h1");
                for name in ["agent.pem", "agent.key", "ca.pem"] {
                    files::write(dir, name, &read(other.path(), name)).unwrap();
                }
            },
            "no CA of the CA file was trusted before",
        ),
        (
            "a CA file without one",
            |dir| files::write(dir, "ca.pem", "nothing").unwrap(),
            "not certificates of one to 8 CAs",
        ),
        (
            "a key that others can read",
            |dir| {
                fs::set_permissions(dir.join("agent.key"), Permissions::from_mode(0o644)).unwrap();
            },
            "has mode 644",
        ),
    ];
    for (what, spoil, told) in cases {
        let dir = identity("h1");
        let credentials = Credentials::load(dir.path(), AGENT).unwrap();
        let (serial, client) = (credentials.serial(), credentials.client());
        renew(dir.path(), "h1");
        spoil(dir.path());
        let (why, news) = refused(&credentials);
        assert!(why.to_string().contains(told), "{what}: {why}");
        assert!(news, "{what}");
        assert!(!refused(&credentials).1, "{what}: told again and again");
        assert_eq!((credentials.serial(), credentials.generation()), (serial, 0), "{what}");
        assert!(Arc::ptr_eq(&credentials.client(), &client), "{what}");
        // At a start there is nothing to go on with; only what is good in itself is loaded.
        let fit = matches!(what, "another host's pair" | "everything of another CA");
        assert_eq!(Credentials::load(dir.path(), AGENT).is_ok(), fit, "{what}");
    }
}

#[test]
fn what_was_refused_is_taken_up_once_it_is_mended() {
    let dir = identity("h1");
    let credentials = Credentials::load(dir.path(), AGENT).unwrap();
    renew(dir.path(), "h1");
    fs::set_permissions(dir.path().join("agent.key"), Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(refused(&credentials).0, IdentityError::Exposed { .. }));
    fs::remove_file(dir.path().join("agent.pem")).unwrap();
    assert!(refused(&credentials).1, "another reason is news");
    made_at(dir.path(), "h1", SystemTime::now());
    assert!(matches!(look(&credentials), Looked::TakenUp { .. }));
}

#[test]
fn certificates_that_are_over_or_not_yet_begun_are_refused_until_their_time() {
    let dir = identity("h1");
    let credentials = Credentials::load(dir.path(), AGENT).unwrap();
    fs::remove_file(dir.path().join("agent.pem")).unwrap();
    let begin = SystemTime::now() + Duration::from_hours(1);
    made_at(dir.path(), "h1", begin);
    let (why, _) = refused(&credentials);
    assert!(matches!(why, IdentityError::Unfit { why: Unfit::NotNow, .. }), "{why}");
    // The files rest; the time comes.
    assert!(matches!(credentials.look(begin + Duration::from_mins(1)), Looked::TakenUp { .. }));
}

#[test]
fn another_ca_is_gone_over_to_by_way_of_both() {
    let (ours, theirs) = (identity("h1"), identity("h1"));
    let dir = ours.path();
    let credentials = Credentials::load(dir, AGENT).unwrap();
    let (old, new) = (read(dir, "ca.pem"), read(theirs.path(), "ca.pem"));
    let now = SystemTime::now();
    let by_old = credentials.signer().sign("p", now, 0, b"b").unwrap();
    let take = |step: &str| assert!(matches!(look(&credentials), Looked::TakenUp { .. }), "{step}");
    files::write(dir, "ca.pem", &format!("{old}{new}")).unwrap();
    take("both are trusted");
    for name in ["agent.pem", "agent.key"] {
        files::write(dir, name, &read(theirs.path(), name)).unwrap();
    }
    take("a certificate of the new one");
    // A statement of either CA's workers is believed as long as both are in the file.
    let by_new = credentials.signer().sign("p", now, 0, b"b").unwrap();
    let alone = |ca: &str| {
        let dir = tempfile::tempdir().unwrap();
        files::write(dir.path(), "ca.pem", ca).unwrap();
        StatementVerifier::load(dir.path()).unwrap()
    };
    let third = StatementSigner::load(identity("h1").path(), AGENT).unwrap().sign("p", now, 0, b"b").unwrap();
    assert!(credentials.verifier().verify("p", &third, now, 0).is_err(), "of a third CA");
    for said in [&by_old, &by_new] {
        assert!(credentials.verifier().verify("p", said, now, 0).is_ok());
    }
    assert!(alone(&old).verify("p", &by_new, now, 0).is_err());
    files::write(dir, "ca.pem", &new).unwrap();
    take("the old one is trusted no longer");
    assert!(credentials.verifier().verify("p", &by_new, now, 0).is_ok());
    assert!(credentials.verifier().verify("p", &by_old, now, 0).is_err());
    files::write(dir, "ca.pem", &old).unwrap();
    assert!(matches!(refused(&credentials).0, IdentityError::Unfit { .. }), "no way back past both");
}
