//! The socket with the test at the agent's end.

use super::*;
use messages::Outcome;
use rustix::{
    fs::{MemfdFlags, fcntl_add_seals, memfd_create},
    net::{
        AddressFamily, SocketFlags, SocketType, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use warren_chunks::store::Whence;

const MOST: usize = 1000;

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn file(bytes: &[u8], seals: SealFlags) -> OwnedFd {
    let file = memfd_create("x", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::write(&file, bytes).unwrap();
    fcntl_add_seals(&file, seals).unwrap();
    file
}

fn wanted(agent: &OwnedFd) -> Wanted {
    decode(&packet::receive(agent, PACKET_MAX).unwrap().unwrap().bytes).unwrap()
}

fn answer(agent: &OwnedFd, ask: u64, outcome: Outcome, files: &[&OwnedFd]) {
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    packet::send(agent, &encode(&Answer { ask, outcome }).unwrap(), &files).unwrap();
}

const FETCHED: Outcome = Outcome::Fetched { from: Whence::Peers };

struct Rig {
    runtime: tokio::runtime::Runtime,
    upstream: Upstream,
}

type Asked = tokio::task::JoinHandle<Result<Fetched, OriginError>>;

impl Rig {
    fn new() -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_time().build().unwrap();
        let patience = Patience { silence: Duration::from_millis(300), object: Duration::from_secs(30) };
        Self { runtime, upstream: Upstream::new(patience) }
    }

    fn attach(&self) -> OwnedFd {
        let (ours, theirs) = pair();
        self.upstream.attach(theirs).unwrap();
        // A question that does not come fails a case; it does not hang it.
        set_socket_timeout(&ours, Timeout::Recv, Some(Duration::from_secs(20))).unwrap();
        ours
    }

    fn ask(&self, name: u8) -> Asked {
        let upstream = self.upstream.clone();
        self.runtime.spawn(async move { upstream.ask(Name([name; 32]), MOST).await })
    }

    fn end(&self, asked: Asked) -> Result<Fetched, OriginError> {
        self.runtime.block_on(asked).unwrap()
    }
}

fn why(answer: Result<Fetched, OriginError>) -> String {
    crate::memory::chain(&answer.unwrap_err())
}

#[test]
fn what_is_asked_is_brought_in_whatever_order() {
    let rig = Rig::new();
    assert!(matches!(rig.end(rig.ask(1)), Err(OriginError::Absent)), "nobody was ever there to ask");
    let agent = rig.attach();
    let (first, second) = (rig.ask(1), rig.ask(2));
    let all = [wanted(&agent), wanted(&agent)];
    assert!(all.iter().all(|wanted| wanted.most == MOST as u64));
    for wanted in all.iter().rev() {
        answer(&agent, wanted.ask, FETCHED, &[&file(&[wanted.name[0]; 900], SEALS)]);
    }
    for (asked, byte) in [(first, 1), (second, 2)] {
        let expected = Fetched { sealed: vec![byte; 900].into(), from: Whence::Peers };
        assert_eq!(rig.end(asked).unwrap(), expected);
    }
    let failed = rig.ask(3);
    answer(&agent, wanted(&agent).ask, Outcome::failed("the bucket is on fire"), &[]);
    assert!(why(rig.end(failed)).contains("the bucket is on fire"));
    let absent = rig.ask(4);
    answer(&agent, wanted(&agent).ask, Outcome::Absent, &[]);
    assert!(matches!(rig.end(absent), Err(OriginError::Absent)));
}

/// What is handed over is a file that cannot change and is read without waiting, or the object is not had.
#[test]
fn what_is_no_sealed_file_is_not_read() {
    let rig = Rig::new();
    let agent = rig.attach();
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let (socket, _its_other) = pair();
    for wrong in [
        file(b"open", SealFlags::empty()),
        file(b"it can grow", SealFlags::WRITE | SealFlags::SHRINK),
        file(&[0; MOST + 1], SEALS),
        pipe,
        socket,
    ] {
        let asked = rig.ask(1);
        answer(&agent, wanted(&agent).ask, FETCHED, &[&wrong]);
        assert!(why(rig.end(asked)).contains("no sealed file"));
    }
    let asked = rig.ask(1);
    answer(&agent, wanted(&agent).ask, FETCHED, &[&file(&[7; MOST], SEALS)]);
    assert_eq!(rig.end(asked).unwrap().sealed.len(), MOST);
}

/// To what question, with a sound file at hand.
type Breach = fn(&OwnedFd, u64, &dyn Fn() -> OwnedFd);

/// Each of these ends the conversation: the agent's end sees it closed. What waited then is asked of the next agent.
#[test]
fn an_agent_that_breaks_the_protocol_is_left_and_the_next_one_is_asked() {
    let rig = Rig::new();
    let sound = || file(b"x", SEALS);
    let breaches: [Breach; 5] = [
        |agent, ask, sound| answer(agent, ask + 1, FETCHED, &[&sound()]),
        |agent, ask, _| answer(agent, ask, FETCHED, &[]),
        |agent, ask, sound| answer(agent, ask, FETCHED, &[&sound(), &sound()]),
        |agent, ask, sound| answer(agent, ask, Outcome::Absent, &[&sound()]),
        |agent, _, _| packet::send(agent, b"\xff\xff\xff", &[]).unwrap(),
    ];
    for breach in breaches {
        let agent = rig.attach();
        let waits = rig.ask(9);
        let question = wanted(&agent);
        // It is about another one that nobody waits for any more, so that this one waits on.
        let other = rig.ask(1);
        let asked = wanted(&agent);
        other.abort();
        breach(&agent, asked.ask, &sound);
        assert!(packet::receive(&agent, PACKET_MAX).unwrap().is_none(), "it is still listened to");
        let next = rig.attach();
        let again = wanted(&next);
        assert_eq!((again.name, again.ask), (question.name, question.ask));
        answer(&next, again.ask, FETCHED, &[&file(b"here", SEALS)]);
        assert_eq!(rig.end(waits).unwrap().sealed, "here");
    }
}

/// One that is gone, and one that is silent, end who waits by their name, and soon; one that is heard of is waited for.
#[test]
fn nobody_waits_for_an_agent_without_hope() {
    let rig = Rig::new();
    let agent = rig.attach();
    let waits = rig.ask(1);
    wanted(&agent);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        rig.upstream.heard();
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!waits.is_finished(), "an agent that is heard of is given up");
    assert!(why(rig.end(waits)).contains("is silent"));
    let waits = rig.ask(1);
    wanted(&agent);
    drop(agent);
    assert!(why(rig.end(waits)).contains("is gone"));
    // One that is there in time is asked what waits, and one that says much and brings nothing is not waited for either.
    let waits = rig.ask(1);
    let agent = rig.attach();
    answer(&agent, wanted(&agent).ask, FETCHED, &[&file(b"here", SEALS)]);
    assert_eq!(rig.end(waits).unwrap().sealed, "here");
    let places = rig.upstream.0.places.available_permits();
    assert_eq!(places, ASKS_MAX, "a place is lost");
}

#[test]
fn one_object_is_not_waited_for_for_ever() {
    let mut rig = Rig::new();
    let patience = Patience { silence: Duration::from_mins(1), object: Duration::from_millis(100) };
    rig.upstream = Upstream::new(patience);
    let agent = rig.attach();
    let waits = rig.ask(1);
    assert!(why(rig.end(waits)).contains("in time"));
    // Its late answer is thrown away, and no breach.
    answer(&agent, wanted(&agent).ask, FETCHED, &[&file(b"late", SEALS)]);
    let asked = rig.ask(2);
    answer(&agent, wanted(&agent).ask, FETCHED, &[&file(b"here", SEALS)]);
    assert_eq!(rig.end(asked).unwrap().sealed, "here");
}

/// However many want something, an agent has no more questions at once than may be.
#[test]
fn questions_are_bounded() {
    let rig = Rig::new();
    let agent = rig.attach();
    let asked: Vec<_> = (0..100).map(|name| rig.ask(name)).collect();
    let first: Vec<_> = (0..ASKS_MAX).map(|_| wanted(&agent)).collect();
    let mut ready = [PollFd::new(&agent, PollFlags::IN)];
    let moment = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    assert_eq!(poll(&mut ready, Some(&moment)).unwrap(), 0, "one more than may be");
    for wanted in first {
        answer(&agent, wanted.ask, Outcome::Slow, &[]);
    }
    for _ in ASKS_MAX..100 {
        answer(&agent, wanted(&agent).ask, Outcome::Slow, &[]);
    }
    assert!(asked.into_iter().all(|one| matches!(rig.end(one), Err(OriginError::Slow))));
}
