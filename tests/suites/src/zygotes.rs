//! What waits for cold starts, seen from outside.

use crate::Installation;
use anyhow::{Context as _, Result};
use warren_proto::v1::{ListHostsRequest, Zygotes};

impl Installation {
    /// What became of zygotes, by the agent's count.
    pub async fn zygotes_so_far(&self) -> Result<Zygotes> {
        let hosts = self.client.admin().list_hosts(ListHostsRequest {}).await?.into_inner().hosts;
        hosts.first().and_then(|host| host.zygotes).context("no host tells of zygotes")
    }

    /// Jailed processes of this installation that are no zygotes.
    pub async fn jailed_for_somebody(&self) -> Result<Vec<i32>> {
        let zygotes = self.zygotes().await?;
        let mut jailed = self.jailed()?;
        jailed.retain(|pid| zygotes.iter().all(|zygote| zygote.pid != *pid));
        Ok(jailed)
    }
}
