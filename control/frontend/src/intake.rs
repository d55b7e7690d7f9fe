//! What a deploy hands in, as workers get it: a Wasm function's module and files as they are, a Linux function's zip made the
//! archive that every host knows.

use bytes::Bytes;
use tonic::Code;
use warren_bundle::{BundleError, from_zip, is_zip};
use warren_proto::{
    error::{Fault, WireError},
    v1::Kind,
};
use warren_validation::{bad_request, function};

/// Bytes of a deploy; `None` means that those of the last version are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intake {
    /// A module; empty for Linux functions.
    pub(crate) code: Option<Bytes>,
    /// An archive of files.
    pub(crate) task: Option<Bytes>,
}

impl Intake {
    /// Checks what came for a function of this kind.
    pub(crate) async fn of(kind: Kind, code: Option<Bytes>, task: Option<Bytes>) -> Result<Self, WireError> {
        if kind != Kind::Linux {
            match (&code, &task) {
                (Some(code), task) => function::code(code, task.as_deref().unwrap_or_default())?,
                (None, Some(task)) => function::code(b"kept", task)?,
                (None, None) => {}
            }
            return Ok(Self { code, task });
        }
        if task.is_some_and(|task| !task.is_empty()) {
            return Err(bad_request("the files of a Linux function are its code; task must be empty"));
        }
        let Some(files) = code else { return Ok(Self { code: Some(Bytes::new()), task: None }) };
        function::files(&files)?;
        let archive = if is_zip(&files) { unzip(files).await? } else { files };
        Ok(Self { code: Some(Bytes::new()), task: Some(archive) })
    }
}

/// Off the threads that serve: a zip may take a second.
async fn unzip(zip: Bytes) -> Result<Bytes, WireError> {
    match tokio::task::spawn_blocking(move || from_zip(&zip)).await {
        Ok(Ok(archive)) => Ok(archive.into()),
        Ok(Err(error)) => Err(refused(&error)),
        Err(_stopped) => {
            Err(WireError::new(Code::Internal, "INTERNAL", Fault::System, "unpacking the zip stopped"))
        }
    }
}

fn refused(error: &BundleError) -> WireError {
    WireError::new(Code::InvalidArgument, error.reason(), Fault::Caller, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_proto::reason;

    /// Both sides of the reasons: what clients are told is listed.
    #[test]
    fn reasons_are_listed() {
        let text = String::new;
        for (error, listed) in [
            (BundleError::ZipTooLarge(1), reason::CODE_TOO_LARGE),
            (BundleError::TooLarge, reason::CODE_TOO_LARGE),
            (BundleError::TooMany, reason::ZIP_TOO_MANY_ENTRIES),
            (BundleError::Bomb(text()), reason::ZIP_BOMB),
            (BundleError::Malformed(text()), reason::ZIP_MALFORMED),
            (BundleError::Name(text()), reason::ZIP_UNSAFE_NAME),
            (BundleError::LongName(text()), reason::ZIP_UNSAFE_NAME),
            (BundleError::Twice(text()), reason::ZIP_DUPLICATE_NAME),
            (BundleError::Link(text()), reason::ZIP_SPECIAL_FILE),
            (BundleError::Special(text()), reason::ZIP_SPECIAL_FILE),
            (BundleError::Encrypted(text()), reason::ZIP_UNSUPPORTED),
        ] {
            assert_eq!(refused(&error).reason, listed);
        }
    }

    #[tokio::test]
    async fn table() {
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let wasm = Intake::of(Kind::Wasm, bytes("module"), None).await.unwrap();
        assert_eq!((wasm.code, wasm.task), (bytes("module"), None));
        assert!(Intake::of(Kind::Unspecified, bytes(""), None).await.is_err());
        let linux = Intake::of(Kind::Linux, bytes("an archive"), bytes("")).await.unwrap();
        assert_eq!((linux.code, linux.task), (bytes(""), bytes("an archive")));
        let kept = Intake::of(Kind::Linux, None, None).await.unwrap();
        assert_eq!((kept.code, kept.task), (bytes(""), None));
        assert!(Intake::of(Kind::Linux, None, bytes("files")).await.is_err());
        let broken = Intake::of(Kind::Linux, bytes("PK\x03\x04 and no more"), None).await.unwrap_err();
        assert_eq!(broken.reason, reason::ZIP_MALFORMED);
    }
}
