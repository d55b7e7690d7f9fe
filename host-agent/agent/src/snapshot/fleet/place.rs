//! Where the origin is, as a person writes it: a folder, or `s3://BUCKET/PREFIX`.
//!
//! Who asks a bucket is said by the environment, as AWS's own tools have it: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, and where
//! wanted `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_CA_BUNDLE`.

use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr};
use warren_chunks::l3::{Origin, OriginError, OriginLimits, S3};

/// The region where none is said.
const REGION: &str = "us-east-1";

/// An origin.
#[derive(Clone, Debug)]
pub enum Place {
    /// A folder, which many hosts may share.
    Folder(PathBuf),
    /// A bucket.
    S3(Box<S3>),
}

/// It cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    /// Neither form.
    #[error("an origin is a folder, or s3://BUCKET/PREFIX")]
    Form,
    /// Its credentials are not in the environment.
    #[error("{0} is not set, which an origin in S3 needs")]
    Unset(&'static str),
    /// Credentials of a form that is not spoken.
    #[error("AWS_SESSION_TOKEN is set: temporary credentials are not supported")]
    Session,
}

impl Place {
    /// Reads one; what `environment` says is asked for S3 alone.
    fn parse(text: &str, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self, BadPlace> {
        let Some(rest) = text.strip_prefix("s3://") else {
            let other = text.contains("://") || text.is_empty();
            return if other { Err(BadPlace::Form) } else { Ok(Self::Folder(text.into())) };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(BadPlace::Form);
        }
        let said = |name: &str| environment(name).and_then(|value| value.into_string().ok());
        if said("AWS_SESSION_TOKEN").is_some() {
            return Err(BadPlace::Session);
        }
        let demand = |name: &'static str| said(name).ok_or(BadPlace::Unset(name));
        Ok(Self::S3(Box::new(S3 {
            endpoint: said("AWS_ENDPOINT_URL"),
            region: said("AWS_REGION").unwrap_or_else(|| REGION.to_owned()),
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            access_key: demand("AWS_ACCESS_KEY_ID")?,
            secret_key: demand("AWS_SECRET_ACCESS_KEY")?,
            roots: said("AWS_CA_BUNDLE").map(PathBuf::from),
        })))
    }

    /// Opens it. Blocks.
    pub(super) fn open(self, limits: OriginLimits) -> Result<Origin, OriginError> {
        match self {
            Self::Folder(folder) => Origin::folder(&folder, limits),
            Self::S3(bucket) => Origin::s3(*bucket, limits),
        }
    }
}

impl FromStr for Place {
    type Err = BadPlace;

    fn from_str(text: &str) -> Result<Self, BadPlace> {
        Self::parse(text, |name| std::env::var_os(name))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::S3(bucket) => write!(f, "s3://{}/{}", bucket.bucket, bucket.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];

    #[track_caller]
    fn check(text: &str, environment: &[(&str, &str)], expected: &Result<&str, BadPlace>) {
        let said = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let parsed = Place::parse(text, said).map(|place| place.to_string());
        assert_eq!(parsed.as_deref(), expected.as_deref(), "{text}");
    }

    #[test]
    fn folders_and_buckets() {
        check("/srv/origin", &[], &Ok("/srv/origin"));
        check("origin", &[], &Ok("origin"));
        check("s3://bucket/some/prefix", &KEYS, &Ok("s3://bucket/some/prefix"));
        check("s3://bucket", &KEYS, &Ok("s3://bucket/"));
        check("", &[], &Err(BadPlace::Form));
        check("s3://", &KEYS, &Err(BadPlace::Form));
        check("s3:///prefix", &KEYS, &Err(BadPlace::Form));
        check("gs://bucket", &KEYS, &Err(BadPlace::Form));
        check("s3://bucket", &KEYS[1..], &Err(BadPlace::Unset("AWS_ACCESS_KEY_ID")));
        check("s3://bucket", &KEYS[..1], &Err(BadPlace::Unset("AWS_SECRET_ACCESS_KEY")));
        let session = [KEYS[0], KEYS[1], ("AWS_SESSION_TOKEN", "token")];
        check("s3://bucket", &session, &Err(BadPlace::Session));
    }

    #[test]
    fn secrets_are_not_printed() {
        let place = Place::parse("s3://bucket", |name| {
            Some(format!("the {name}").into()).filter(|_| name != "AWS_SESSION_TOKEN")
        })
        .unwrap();
        let printed = format!("{place:?} {place}");
        assert!(!printed.contains("SECRET") && !printed.contains("ACCESS_KEY_ID"), "{printed}");
    }
}
