use super::*;
use proptest::prelude::*;
use std::io::Read;
use warren_vmm_protocol::{ControlReply, ControlRequest};

fn pair() -> (UnixStream, Connection) {
    let (peer, ours) = UnixStream::pair().unwrap();
    (peer, Connection::new(ours).unwrap())
}

/// Everything that can be taken now.
fn take_all(connection: &mut Connection) -> Result<Vec<ControlRequest>, FrameError> {
    std::iter::from_fn(|| connection.take().transpose()).collect()
}

#[test]
fn a_peer_that_does_not_read_is_given_up_at_the_bound() {
    let (_peer, mut connection) = pair();
    let reply = ControlReply::Loaded { init_us: 0, build_us: 0, log: vec![0; 100_000] };
    let count = (0..100).take_while(|_| connection.send(&reply).is_ok()).count();
    assert!((10..20).contains(&count), "{count} replies of 100,000 bytes were kept");
}

#[test]
fn what_was_kept_goes_out_later() {
    let (mut peer, mut connection) = pair();
    let reply = ControlReply::Loaded { init_us: 0, build_us: 0, log: vec![7; 250_000] };
    for _ in 0..3 {
        connection.send(&reply).unwrap();
    }
    assert!(connection.wants_to_write());
    let expect = frame::encode(&reply).unwrap().repeat(3);
    let mut got = vec![0; expect.len()];
    let mut done = 0;
    while done < got.len() {
        done += peer.read(&mut got[done..]).unwrap();
        connection.flush().unwrap();
    }
    assert!(got == expect && !connection.wants_to_write());
}

proptest! {
    /// Messages come out whole and in order, wherever the stream was cut.
    #[test]
    fn cuts_do_not_matter(count in 1_usize..8, cuts in prop::collection::vec(1_usize..9, 1..20)) {
        let (mut peer, mut connection) = pair();
        let sent: Vec<_> = (0..count)
            .map(|i| if i % 3 == 0 { ControlRequest::Shutdown } else { ControlRequest::Status })
            .collect();
        let bytes: Vec<u8> = sent.iter().flat_map(|message| frame::encode(message).unwrap()).collect();
        let mut got = Vec::new();
        let mut rest = bytes.as_slice();
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(cut.min(rest.len()));
            peer.write_all(now).unwrap();
            connection.receive().unwrap();
            got.extend(take_all(&mut connection).unwrap());
            rest = later;
        }
        prop_assert_eq!(got, sent);
    }

    /// Any bytes are messages, or wait for more, or are refused; nothing is kept beyond one message.
    #[test]
    fn any_bytes_are_borne(bytes in prop::collection::vec(any::<u8>(), 1..4000)) {
        let (mut peer, mut connection) = pair();
        peer.write_all(&bytes).unwrap();
        connection.receive().unwrap();
        let _ = take_all(&mut connection);
        prop_assert!(connection.inbox.len() <= INBOX_MAX);
    }
}
