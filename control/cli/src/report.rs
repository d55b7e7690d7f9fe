//! How a failure is shown.

use crate::screen;
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

/// Prints a failure on standard error and gives its exit code.
pub(crate) fn show(failure: &Failure) -> ExitCode {
    match failure {
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

fn retry(error: &WireError) -> String {
    match (error.retryable, error.retry_after) {
        (false, _) => "no use: the same call would fail again".into(),
        (true, Some(after)) => format!("yes, after {} ms", after.as_millis()),
        (true, None) => "yes, the same call may succeed".into(),
    }
}
