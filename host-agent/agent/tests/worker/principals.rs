//! Who may call what of `warren-agent`: everybody there is, over real TLS, by the table of all methods that control's suite tries too.

use crate::{
    callers::{Callers, everybody_calls_everything},
    rig::Rig,
    shared::Origin,
};
use warren_identity::Peer;

#[tokio::test(flavor = "multi_thread")]
async fn everybody_calls_everything_of_an_agent() {
    let origin = Origin::new();
    // Chunks are served where snapshots are shared.
    let rig = Rig::start(&["--snapshots-mib=64", "--no-pager", &origin.flag()]).await;
    let callers = Callers::of(&rig.dir.path().join("identity"), &rig.host);
    let (tries, wrong) =
        everybody_calls_everything(&callers, &Peer::Worker(rig.host.clone()), &rig.address).await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{tries} calls, each with the verdict of its row");
}
