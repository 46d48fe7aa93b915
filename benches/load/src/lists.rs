//! Lists that nobody reads.

use std::time::Duration;

use anyhow::Result;
use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;

const LISTS_PER_CONNECTION: usize = 100;
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Opens so many, and holds them for so long.
pub(crate) async fn leave_unread(address: &str, count: usize, length: Duration) -> Result<()> {
    let mut lists = Vec::new();
    while lists.len() < count {
        let channel = crate::connect(address).await?;
        let mut client = KvClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        for _ in lists.len()..count.min(lists.len() + LISTS_PER_CONNECTION) {
            lists.push(client.list(v1::ListRequest::default()).await?.into_inner());
        }
    }
    println!("{count} lists are open");
    tokio::time::sleep(length).await;
    Ok(())
}
