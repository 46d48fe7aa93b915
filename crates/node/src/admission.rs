//! Which calls a node takes in: what every node of the cluster would refuse is refused here, before it takes up room.
//!
//! Whether whoever asks may do so is judged first, by the layout that the node goes by: by the node that takes a call from a client, and again
//! by the one that it is passed on to, whose layout may be a later one.

use ringfort_ring::Layout;
use ringfort_types::limits::{NODE_PENDING_BYTES_MAX, NODE_PENDING_REQUESTS_MAX};
use ringfort_types::{Call, Code, Copies, Failure, NodeId, Request, ShardId, count, shown, slot_of};

/// Whether whoever asks may ask for it.
pub(crate) fn is_allowed(call: &Call, layout: &Layout) -> Result<(), Failure> {
    layout.users.judge(call.who, &call.request).into_failure().map_or(Ok(()), Err)
}

/// Whether the cluster as it is could do what a valid call asks for.
pub(crate) fn fits(call: &Call, layout: &Layout) -> Result<(), Failure> {
    if let Request::DigestAt { node, shard, .. } = call.request {
        return has_replica(node, shard, layout);
    }
    if let Request::ChangeLayout(change) = &call.request
        && let Some(why) = layout.too_early(change)
    {
        return Err(Failure::rejected(Code::FailedPrecondition, why));
    }
    let mut keys = call.request.keys();
    let Some(first) = keys.next() else { return Ok(()) };
    let shard = layout.shard_of_slot(slot_of(first));
    // What several keys are asked for at once can be done only if one shard has them all.
    if let Some(other) = keys.find(|key| layout.shard_of_slot(slot_of(key)) != shard) {
        return Err(Failure::rejected(
            Code::InvalidArgument,
            format!(
                "keys \"{}\" and \"{}\" are of different shards, and only keys of one shard can be written or read at \
                 once: give keys that belong together the same part in braces, as in {{user1}}name and {{user1}}mail",
                shown(first),
                shown(other)
            ),
        ));
    }
    // More copies than there are replicas could never be made.
    let replicas = layout.shard(shard).map_or(0, |shard| shard.replicas.len());
    match call.durability.copies {
        Copies::AtLeast(copies) if copies as usize > replicas => Err(Failure::rejected(
            Code::InvalidArgument,
            format!(
                "{copies} copies were asked for, and shard {shard} has {}: nothing was written; ask for {replicas} at most, or \
                 for a cluster with more replicas",
                count(replicas as u64, "replica", "replicas")
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether this node has a replica of this shard. If there is no such shard, that is said elsewhere.
fn has_replica(node: NodeId, shard: ShardId, layout: &Layout) -> Result<(), Failure> {
    let Some(places) = layout.shard(shard).map(|shard| &shard.replicas) else { return Ok(()) };
    if places.iter().any(|place| place.node == node) {
        return Ok(());
    }
    let called = |node: NodeId| {
        layout.member(node).map_or_else(|| format!("node {node}"), |member| member.name.clone())
    };
    let nodes: Vec<String> = places.iter().map(|place| called(place.node)).collect();
    Err(Failure::rejected(
        Code::FailedPrecondition,
        format!("{} has no replica of shard {shard}: ask one of {}", called(node), nodes.join(", ")),
    ))
}

/// Whether there is room for another call beside so many with so many bytes.
pub(crate) fn has_room(call: &Call, pending: usize, pending_bytes: usize) -> Result<(), Failure> {
    if pending < NODE_PENDING_REQUESTS_MAX && pending_bytes + call.weight() <= NODE_PENDING_BYTES_MAX {
        return Ok(());
    }
    Err(Failure::rejected(
        Code::ResourceExhausted,
        format!(
            "this node has {} with {pending_bytes} bytes waiting: send fewer at a time",
            count(pending as u64, "request", "requests")
        ),
    ))
}

/// Why a node takes no calls whose cluster is not born yet.
pub(crate) fn not_born(missing: &[String]) -> Failure {
    let message = match missing.join(", ").as_str() {
        "" => "this cluster is just being born: try again in a moment".to_owned(),
        missing => format!("this cluster is not born yet: it waits for {missing} to start"),
    };
    Failure::rejected(Code::Unavailable, message)
}
