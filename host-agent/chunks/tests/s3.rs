//! The third tier over a real S3 API server.
#![expect(clippy::unwrap_used, reason = "a test says what it found by failing")]

mod common;
#[path = "common/moto.rs"]
mod moto;

use common::{block_on, contract, hasty};
use moto::Moto;
use warren_chunks::l3::{Area, Origin};

fn origin(moto: &Moto, bucket: &str, prefix: &str) -> Origin {
    Origin::s3(moto.bucket(bucket, prefix), hasty()).unwrap()
}

#[test]
fn a_bucket_keeps_the_contract() {
    let moto = Moto::start();
    moto.make_bucket("chunks");
    block_on(async {
        // moto looks and writes in two steps, so two creators can both be told that they did.
        contract(origin(&moto, "chunks", "a/b"), origin(&moto, "chunks", "a/b"), false).await;
        assert_eq!(origin(&moto, "chunks", "a/b").list(Area::Live).await.unwrap().len(), 21);
        contract(origin(&moto, "chunks", ""), origin(&moto, "chunks", ""), false).await;
        let nobody = origin(&moto, "none", "").list(Area::Live).await;
        assert!(nobody.is_err(), "a bucket that is not there is not empty");
    });
}
