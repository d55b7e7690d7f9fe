//! The third tier as an S3 bucket: the same areas as key prefixes.
//!
//! Requests are signed by object_store with ring, the workspace's one provider; retries and deadlines are
//! [`Origin`](super::Origin)'s, so object_store makes none.

use super::{
    error::OriginError,
    http::{Connector, Roots},
    origin::{Area, Held},
};
use crate::{files::Taken, name::Name};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{
    ObjectStore, ObjectStoreExt as _, PutMode, PutOptions,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm},
    path::Path,
};
use ring::{digest, hmac};
use std::{fmt, path::PathBuf, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Which bucket, and who asks.
#[derive(Clone)]
pub struct S3 {
    /// `https://host:port`; without one, that of AWS in `region`.
    pub endpoint: Option<String>,
    /// The region; anything where the server knows none.
    pub region: String,
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; may be empty.
    pub prefix: String,
    /// Who asks.
    pub access_key: String,
    /// By what it is believed.
    pub secret_key: String,
    /// The PEM file of whom to believe the server is the server; without one, the system's.
    pub roots: Option<PathBuf>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, region, bucket, prefix, .. } = self;
        write!(f, "S3({endpoint:?} {region} {bucket} {prefix})")
    }
}

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: String,
}

impl Bucket {
    pub(super) fn open(config: S3) -> Result<Self, OriginError> {
        let S3 { endpoint, region, bucket, prefix, access_key, secret_key, roots } = config;
        // Plain HTTP is for loopback and tests: chunks are sealed, and names and credentials' signatures still show.
        let plain = endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let roots = if plain { None } else { Some(Roots::read(roots.as_deref())?) };
        let mut builder = AmazonS3Builder::new()
            .with_region(region)
            .with_bucket_name(bucket)
            .with_access_key_id(access_key)
            .with_secret_access_key(secret_key)
            .with_allow_http(plain)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_crypto_provider(Arc::new(Ring))
            .with_http_connector(Connector::new(roots))
            .with_retry(object_store::RetryConfig { max_retries: 0, ..object_store::RetryConfig::default() });
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build()?;
        Ok(Self { store, prefix: prefix.trim_matches('/').to_owned() })
    }

    fn key(&self, area: Area, name: Name) -> Path {
        Path::from_iter([self.prefix.as_str(), area.prefix(), &name.shard(), &name.to_string()])
    }

    pub(super) async fn put(
        &self,
        area: Area,
        name: Name,
        sealed: Bytes,
        taken: Taken,
    ) -> Result<bool, OriginError> {
        let mode = match taken {
            Taken::Leave => PutMode::Create,
            Taken::Replace => PutMode::Overwrite,
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&self.key(area, name), sealed.into(), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn get(&self, area: Area, name: Name, most: usize) -> Result<Bytes, OriginError> {
        let found = self.store.get(&self.key(area, name)).await?;
        // What is longer than anything is not read: it is nothing of ours.
        if found.meta.size > most as u64 {
            return Err(OriginError::Damaged);
        }
        Ok(found.bytes().await?)
    }

    pub(super) async fn held(&self, area: Area, name: Name) -> Result<Held, OriginError> {
        let meta = self.store.head(&self.key(area, name)).await?;
        Ok(Held { name, bytes: meta.size, since: meta.last_modified.into() })
    }

    /// A copy, then a removal: whoever looks between the two finds it in both.
    pub(super) async fn shift(&self, name: Name, from: Area, to: Area) -> Result<(), OriginError> {
        self.store.copy(&self.key(from, name), &self.key(to, name)).await?;
        self.remove(from, name).await
    }

    pub(super) async fn remove(&self, area: Area, name: Name) -> Result<(), OriginError> {
        match self.store.delete(&self.key(area, name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A long list comes in many answers: each has a deadline of its own.
    pub(super) async fn list(&self, area: Area, deadline: Duration) -> Result<Vec<Held>, OriginError> {
        let prefix = Path::from_iter([self.prefix.as_str(), area.prefix()]);
        let mut listed = self.store.list(Some(&prefix));
        let mut all = Vec::new();
        while let Some(meta) = timeout(deadline, listed.try_next()).await.map_err(|_| OriginError::Slow)?? {
            if let Some(name) = meta.location.filename().and_then(Name::from_hex) {
                all.push(Held { name, bytes: meta.size, since: meta.last_modified.into() });
            }
        }
        Ok(all)
    }
}

/// ring, as object_store asks for it.
#[derive(Debug)]
struct Ring;

impl CryptoProvider for Ring {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                Ok(Box::new(Sha256 { context: digest::Context::new(&digest::SHA256), done: None }))
            }
            _ => Err(unknown()),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> object_store::Result<Box<dyn HmacContext>> {
        let key = match algorithm {
            DigestAlgorithm::Sha256 => hmac::Key::new(hmac::HMAC_SHA256, secret),
            _ => return Err(unknown()),
        };
        Ok(Box::new(HmacSha256 { context: hmac::Context::with_key(&key), done: None }))
    }

    fn sign(&self, _: SigningAlgorithm, _: &[u8]) -> object_store::Result<Box<dyn Signer>> {
        // RSA is for Google's tokens, which nobody has here.
        Err(unknown())
    }
}

fn unknown() -> object_store::Error {
    object_store::Error::NotSupported { source: "not an algorithm of S3".into() }
}

struct Sha256 {
    context: digest::Context,
    done: Option<digest::Digest>,
}

impl DigestContext for Sha256 {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        let done: &digest::Digest = self.done.insert(self.context.clone().finish());
        Ok(done.as_ref())
    }
}

struct HmacSha256 {
    context: hmac::Context,
    done: Option<hmac::Tag>,
}

impl HmacContext for HmacSha256 {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        let done: &hmac::Tag = self.done.insert(self.context.clone().sign());
        Ok(done.as_ref())
    }
}
