//! Which lines a node logs: asked of that node, and of no other one.

use ringfort_proto::status::to_failure;
use ringfort_proto::v1::SetLogLevelRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_types::Failure;

use crate::Options;
use crate::credentials::Authorized;
use crate::one_node::ask;

/// Has the node at `address` log what `filter` lets through, until it is started again; nothing changes if that is empty. The filter that it
/// had before. Ends when the options' time is over at the latest.
pub async fn set_log_level(address: &str, filter: &str, options: &Options) -> Result<String, Failure> {
    let authorization = options.authorization()?;
    authorization.check(address)?;
    ask(address, options, async |channel| {
        let request = SetLogLevelRequest { filter: filter.to_owned() };
        let channel = Authorized::new(channel, &authorization);
        let answer = ClusterClient::new(channel).set_log_level(request).await;
        Ok(answer.map_err(|status| to_failure(&status))?.into_inner().before)
    })
    .await
}
