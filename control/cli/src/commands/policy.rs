//! `warren policy`.

use crate::{screen, shape};
use warren_client::{Client, Outcome};
use warren_proto::v1::{
    Candidate, ExplainPolicyRequest, ListPoliciesRequest, PolicyStatus, RetryPoliciesRequest,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// List the policies that decide now.
    #[command(after_help = "Examples:\n  warren policy ls")]
    Ls,
    /// Show why the last decisions came out as they did.
    #[command(after_help = "\
Examples:
  warren policy explain placement
  warren policy explain routing --function hello --last 3")]
    Explain {
        /// packing, placement or routing.
        #[arg(value_parser = ["packing", "placement", "routing"])]
        kind: String,
        /// Only decisions about this function.
        #[arg(long, default_value = "", hide_default_value = true)]
        function: String,
        /// So many.
        #[arg(long, default_value_t = 10)]
        last: u32,
    },
    /// Show how policies fare: decisions, fallbacks, traps, time, fuel.
    #[command(after_help = "Examples:\n  warren policy status\n  warren policy status --json")]
    Status,
    /// Try now to load the policies that could not be loaded so far.
    #[command(after_help = "Examples:\n  warren policy retry")]
    Retry,
}

/// Runs one.
pub(crate) async fn run(command: Command, client: &Client, json: bool) -> Outcome {
    match command {
        Command::Ls => {
            let policies = policies(client).await?;
            if json {
                screen::print_json(&policies.iter().map(shape::policy).collect());
                return Ok(());
            }
            let rows = policies.iter().map(|policy| {
                vec![
                    policy.kind.clone(),
                    policy.name.clone(),
                    policy.state.clone(),
                    policy.location.clone(),
                    policy.digest.chars().take(12).collect(),
                ]
            });
            let header = ["kind", "name", "state", "runs in", "digest"];
            screen::print(&screen::table(&header, &[], rows.collect()));
        }
        Command::Status => show(&policies(client).await?, json),
        Command::Retry => {
            let tried = client.admin().retry_policies(RetryPoliciesRequest {}).await?.into_inner().policies;
            show(&tried, json);
        }
        Command::Explain { kind, function, last } => {
            let request = ExplainPolicyRequest { kind, function, last };
            let decisions = client.admin().explain_policy(request).await?.into_inner().decisions;
            if json {
                screen::print_json(&decisions.iter().map(shape::decision).collect());
                return Ok(());
            }
            for decision in &decisions {
                let by = if decision.fallback_reason.is_empty() {
                    decision.decided_by.clone()
                } else {
                    format!("{}: {}", decision.decided_by, decision.fallback_reason)
                };
                let mut lines = vec![format!(
                    "{} {} {} ({by}, {} ns)\n  {}\n",
                    shape::clock(decision.unix_ms),
                    decision.kind,
                    decision.function,
                    decision.took_ns,
                    decision.text,
                )];
                for candidate in &decision.candidates {
                    let mark = if candidate.chosen { "*" } else { " " };
                    let Candidate { id, score, note, .. } = candidate;
                    lines.push(format!("  {mark} {id:<32} {score:>8}  {note}\n"));
                }
                screen::print(&lines.concat());
            }
            if decisions.is_empty() {
                screen::print("no decision of this kind yet");
            }
        }
    }
    Ok(())
}

async fn policies(client: &Client) -> Outcome<Vec<PolicyStatus>> {
    Ok(client.admin().list_policies(ListPoliciesRequest {}).await?.into_inner().policies)
}

/// How they fare; what is wrong with one has a line of its own, for it is long.
fn show(policies: &[PolicyStatus], json: bool) {
    if json {
        screen::print_json(&policies.iter().map(shape::policy).collect());
        return;
    }
    screen::print(&status(policies));
    for policy in policies.iter().filter(|policy| !policy.last_error.is_empty()) {
        screen::print(&format!("{}: {}: {}", policy.kind, policy.state, policy.last_error));
    }
}

fn status(policies: &[PolicyStatus]) -> String {
    let rows = policies.iter().map(|policy| {
        vec![
            policy.kind.clone(),
            policy.location.clone(),
            policy.state.clone(),
            policy.decisions.to_string(),
            policy.fallbacks.to_string(),
            policy.traps.to_string(),
            policy.timeouts.to_string(),
            policy.invalid.to_string(),
            format!("{} ns", policy.p50_ns),
            format!("{} ns", policy.p99_ns),
            policy.fuel_p50.to_string(),
        ]
    });
    let header = [
        "kind",
        "runs in",
        "state",
        "decisions",
        "fallbacks",
        "traps",
        "timeouts",
        "invalid",
        "p50",
        "p99",
        "fuel",
    ];
    screen::table(&header, &[3, 4, 5, 6, 7, 8, 9, 10], rows.collect())
}
