//! One question to one node: on a connection of its own, asked once and of nobody else.

use ringfort_proto::reason::reason;
use ringfort_types::{Code, Failure};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use crate::gathered::Connector;
use crate::{Options, parse_address};

/// Connects with the node at this address, of all that the options name, and asks. Ends when their time is over at the latest.
pub(crate) async fn ask<T>(
    address: &str,
    options: &Options,
    question: impl AsyncFnOnce(Channel) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let address = parse_address(address)?;
    let asked = async {
        let way = options.way();
        let endpoint = Endpoint::from_shared(format!("{}://{address}", way.scheme()))
            .map_err(|error| silent(&address, &reason(&error)))?;
        let connecting = endpoint.connect_with_connector(Connector::new(way));
        let channel = connecting.await.map_err(|error| silent(&address, &reason(&error)))?;
        question(channel).await
    };
    timeout(options.timeout, asked).await.unwrap_or_else(|_| Err(silent(&address, "it does not answer")))
}

/// What is said of a node that has not answered.
pub(crate) fn silent(address: &str, why: &str) -> Failure {
    Failure::rejected(Code::Unavailable, format!("can't reach {address}: {why}"))
}
