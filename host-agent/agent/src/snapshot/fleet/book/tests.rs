use super::{super::entry::tests as samples, *};
use warren_chunks::Name;
use warren_identity::HostId;

fn found(function: &str) -> Arc<FleetSnapshot> {
    let dir = samples::fleet("h1");
    Arc::new(FleetSnapshot {
        head: samples::head(function),
        memory: Name([1; 32]),
        disk: None,
        key: samples::keys(dir.path()).tenant(),
        by: HostId::new("h1").unwrap(),
        sequence: 0,
        stored: Stored::default(),
    })
}

/// What a book says of a key now.
fn says(book: &Book, key: SnapshotKey, now: Instant) -> &'static str {
    match book.answer(key, now) {
        Answer::Known(_) => "known",
        Answer::NotNow => "not now",
        Answer::Ask => "ask",
    }
}

#[test]
fn answers_last_for_a_while() {
    let (mut book, now, one) = (Book::default(), Instant::now(), found("echo"));
    let key = one.head.of().key();
    assert_eq!(says(&book, key, now), "ask");
    book.absent(key, now);
    assert_eq!(says(&book, key, now + ABSENT / 2), "not now");
    assert_eq!(says(&book, key, now + ABSENT), "ask");
    book.known(&one, now);
    assert_eq!(says(&book, key, now + KNOWN / 2), "known");
    assert_eq!(says(&book, key, now + KNOWN), "ask");
}

#[test]
fn an_origin_that_is_away_is_left_alone_and_said_once() {
    let (mut book, now, one) = (Book::default(), Instant::now(), found("echo"));
    let (key, other) = (one.head.of().key(), samples::of("other").key());
    book.known(&one, now);
    assert!(book.away(now));
    assert!(!book.away(now + AWAY / 2), "said again");
    assert_eq!(says(&book, other, now + AWAY / 2), "not now");
    assert_eq!(says(&book, key, now + AWAY / 2), "known");
    assert_eq!(says(&book, other, now + AWAY), "ask");
    assert!(book.away(now + AWAY));
    // Whatever it answers, it is back.
    book.absent(key, now + AWAY);
    assert_eq!(says(&book, other, now + AWAY), "ask");
}

#[test]
fn what_is_of_no_use_here_is_not_offered_until_it_is_another() {
    let (mut book, now, one) = (Book::default(), Instant::now(), found("echo"));
    let key = one.head.of().key();
    book.refuse(key, one.head.memory(), Refusal::Vmm);
    book.known(&one, now);
    assert_eq!(says(&book, key, now), "not now");
    assert_eq!(book.refusal(&one), Some(Refusal::Vmm));
    book.refuse(key, Digest::of(b"another memory"), Refusal::Broken);
    assert_eq!((says(&book, key, now), book.refusal(&one)), ("known", None));
}

#[test]
fn copies_are_sent_one_by_one_and_those_that_failed_with_the_next() {
    let mut book = Book::default();
    let [one, two, three] = ["one", "two", "three"].map(samples::of);
    assert!(book.enqueue(one.clone()), "nobody was at it");
    assert!(!book.enqueue(one.clone()) && !book.enqueue(two.clone()), "somebody is");
    assert_eq!(book.next(), Some(one.clone()));
    book.not_sent(one.clone(), "full".to_owned());
    assert_eq!(book.copy(one.key()), Some(&Copy::Failed("full".to_owned())));
    assert_eq!(book.next(), Some(two.clone()));
    let stored = Stored { new_bytes: 1, shared_bytes: 2 };
    assert!(book.sent(two.key(), stored));
    assert_eq!(book.copy(two.key()), Some(&Copy::There(stored)));
    assert_eq!(book.next(), None);
    assert!(book.enqueue(three.clone()), "nobody is at it any more");
    assert_eq!((book.next(), book.next(), book.next()), (Some(one.clone()), Some(three.clone()), None));
    // Removed while it was sent: what was sent is to be taken away again.
    assert!(book.enqueue(three.clone()));
    book.next();
    book.forget(three.key());
    assert!(!book.sent(three.key(), stored));
    book.not_sent(three.clone(), "full".to_owned());
    assert_eq!(book.copy(three.key()), None);
}

#[test]
fn all_of_it_is_bounded() {
    let (mut book, now) = (Book::default(), Instant::now());
    for number in 0..3 * MOST {
        let of = samples::of(&format!("f{number}"));
        let key = of.key();
        book.absent(key, now);
        book.refuse(key, Digest::of(b""), Refusal::Vmm);
        book.enqueue(of.clone());
        if number % 2 == 0 {
            book.not_sent(of, "x".repeat(10_000));
        }
    }
    for len in
        [book.answers.len(), book.refused.len(), book.copies.len(), book.waiting.len(), book.failed.len()]
    {
        assert!(len <= MOST, "{len}");
    }
    let reason = |copy: &Copy| matches!(copy, Copy::Failed(why) if why.len() > MOST_REASON);
    assert!(!book.copies.values().any(reason));
}

#[test]
fn a_linux_functions_is_told_by_its_runtimes_which_goes_first() {
    let mut book = Book::default();
    let [shell, wasm] = [samples::linux_of("shell", "1"), samples::of("wasm")];
    let runtime = shell.runtime().unwrap();
    assert_eq!(book.base(&shell), Some(runtime.clone()));
    assert_eq!((book.base(&runtime), book.base(&wasm)), (None, None));
    assert!(book.enqueue(shell.clone()) && !book.enqueue(wasm.clone()) && !book.enqueue(runtime.clone()));
    assert_eq!(
        [book.next(), book.next(), book.next(), book.next()],
        [Some(runtime), Some(shell), Some(wasm), None]
    );
}

#[test]
fn another_hosts_is_told_from_ones_own() {
    let (mut book, now, one) = (Book::default(), Instant::now(), found("echo"));
    let (key, memory) = (one.head.of().key(), one.head.memory());
    assert!(!book.has_another(key, memory), "nothing was read");
    book.known(&one, now);
    assert!(!book.has_another(key, memory) && book.has_another(key, Digest::of(b"another memory")));
    book.refuse(key, memory, Refusal::Vmm);
    assert!(!book.has_another(key, Digest::of(b"another memory")), "it is of no use here");
}
