//! Which lines a node logs: asked of that node, and of no other one.

use ringfort_proto::reason::reason;
use ringfort_proto::status::to_failure;
use ringfort_proto::v1::SetLogLevelRequest;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_types::{Code, Failure};
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::credentials::Authorized;
use crate::{Options, parse_address};

/// Has the node at `address` log what `filter` lets through, until it is started again; nothing changes if that is empty. The filter that it
/// had before. Ends when the options' time is over at the latest.
pub async fn set_log_level(address: &str, filter: &str, options: &Options) -> Result<String, Failure> {
    let (address, authorization) = (parse_address(address)?, options.authorization()?);
    authorization.check(&address)?;
    let silent = |why: &str| Failure::rejected(Code::Unavailable, format!("can't reach {address}: {why}"));
    let asked = async {
        let endpoint =
            Endpoint::from_shared(format!("http://{address}")).map_err(|error| silent(&reason(&error)))?;
        let channel = endpoint.connect().await.map_err(|error| silent(&reason(&error)))?;
        let request = SetLogLevelRequest { filter: filter.to_owned() };
        let channel = Authorized::new(channel, &authorization);
        let answer = ClusterClient::new(channel).set_log_level(request).await;
        Ok(answer.map_err(|status| to_failure(&status))?.into_inner().before)
    };
    timeout(options.timeout, asked).await.unwrap_or_else(|_| Err(silent("it does not answer")))
}
