//! How a failure is shown.

use crate::screen;
use serde_json::{Value, json};
use std::process::ExitCode;
use warren_client::Failure;
use warren_proto::error::WireError;

/// The exit codes, as `warren --help` prints them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    the function failed: trap, timeout, exit code, bad answer
  2    the command or the request is wrong
  3    throttled: a limit was reached, try again later
  4    not found, exists already, or changed meanwhile
  5    Warren or this machine failed, or cannot be reached
  6    an answer was not what it had to be (demo)
  7    this machine is not prepared for this user, or by a build that does not fit; the message names the sudo command
  130  interrupted";

/// Prints a failure on standard error and gives its exit code. For programs it is one line of JSON.
pub(crate) fn show(failure: &Failure, json: bool) -> ExitCode {
    match failure {
        failure if json => screen::tell(&shape(failure).to_string()),
        Failure::Interrupted => {}
        Failure::Wire(error) => {
            screen::tell(&format!("{} {}", screen::red("error:"), error.message));
            screen::tell(&format!("  reason  {} ({:?})", error.reason, error.code));
            screen::tell(&format!("  fault   {}", error.fault.name()));
            if let Some(said) = &error.said {
                screen::tell(&format!("  type    {}", said.error_type));
            }
            screen::tell(&format!("  retry   {}", retry(error)));
        }
        Failure::Local { message, source: Some(source) } => {
            screen::tell(&format!("{} {message}: {source}", screen::red("error:")));
        }
        other => screen::tell(&format!("{} {other}", screen::red("error:"))),
    }
    ExitCode::from(failure.code())
}

fn shape(failure: &Failure) -> Value {
    let mut error = json!({ "message": failure.to_string(), "exit": failure.code() });
    match failure {
        Failure::Wire(wire) => {
            error["reason"] = wire.reason.clone().into();
            error["fault"] = wire.fault.name().into();
            error["retryable"] = wire.retryable.into();
            error["retry_after_ms"] =
                wire.retry_after.and_then(|after| u64::try_from(after.as_millis()).ok()).into();
            error["type"] = wire.said.as_ref().map(|said| said.error_type.clone()).into();
        }
        Failure::Local { message, source: Some(source) } => {
            error["message"] = format!("{message}: {source}").into();
        }
        _ => {}
    }
    json!({ "error": error })
}

fn retry(error: &WireError) -> String {
    match (error.retryable, error.retry_after) {
        (false, _) => "no use: the same call would fail again".into(),
        (true, Some(after)) => format!("yes, after {} ms", after.as_millis()),
        (true, None) => "yes, the same call may succeed".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use warren_proto::error::Fault;

    #[test]
    fn a_failure_for_programs_says_all_of_it() {
        let wire = WireError::new(Code::NotFound, "NO_SUCH_FUNCTION", Fault::Caller, "no function \"f\"");
        let error = &shape(&Failure::Wire(Box::new(wire)))["error"];
        assert_eq!((&error["reason"], &error["exit"]), (&"NO_SUCH_FUNCTION".into(), &4.into()), "{error}");
        assert_eq!((&error["fault"], &error["retryable"]), (&"caller".into(), &false.into()), "{error}");
        let source = std::io::Error::other("gone");
        let error = &shape(&Failure::io("read it", source))["error"];
        assert_eq!((&error["message"], &error["exit"]), (&"read it: gone".into(), &5.into()), "{error}");
    }
}
