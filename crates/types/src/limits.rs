//! The bounds that users can meet and those that several crates go by, by name; what is one file's own business is at its top. A request beyond
//! one is refused with an error that names it, and nothing changes.
//!
//! Units come last in a name. Relations between bounds are asserted at compile time, at the end.

/// Longest key, in bytes. The shortest is one byte.
pub const KEY_BYTES_MAX: usize = 16 * 1024;
/// How long a call may take that does not say how long, in milliseconds.
pub const CALL_TIMEOUT_DEFAULT_MS: u32 = 3_000;
/// The longest time that a call may take, in milliseconds.
pub const CALL_TIMEOUT_MAX_MS: u32 = 60_000;
/// How long a tombstone keeps the version of a deleted key, in milliseconds: writes that are late by more count as new.
pub const TOMBSTONE_MS: u64 = 24 * 60 * 60 * 1_000;
/// Longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest gRPC message, either way, in bytes.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The least that a client may say it takes in one gRPC message, in bytes: the longest key has room in it.
pub const CLIENT_MESSAGE_BYTES_MIN: usize = 64 * 1024;
/// Most keys in one atomic write.
pub const WRITE_PARTS_MAX: usize = 1024;
/// Most keys that one atomic write adds to: their sums are remembered with its outcome.
pub const WRITE_SUMS_MAX: usize = 64;
/// Most bytes of one atomic write: keys, values and conditions, and 16 for each key.
pub const WRITE_BYTES_MAX: usize = VALUE_BYTES_MAX + 64 * 1024;
/// Most keys that are read at once.
pub const GET_MANY_KEYS_MAX: usize = 1024;
/// Most bytes of keys that are read at once, and of the rows that answer them.
pub const GET_MANY_BYTES_MAX: usize = VALUE_BYTES_MAX + 64 * 1024;
/// Most outcomes that a shard remembers for one session: so many writes of a client may be unanswered there.
pub const SESSION_OUTCOMES_MAX: usize = 1024;
/// Most sessions that a shard remembers; beyond it, it forgets the one that was longest unused.
pub const SHARD_SESSIONS_MAX: usize = 8 * 1024;
/// Most outcomes that a shard remembers over all sessions; beyond it, it forgets as above.
pub const SHARD_OUTCOMES_MAX: usize = 32 * 1024;
/// Most commands in one Raft entry.
pub const ENTRY_COMMANDS_MAX: usize = 4096;
/// A Raft entry is closed once its commands reach this many bytes (one command may be larger by itself).
pub const ENTRY_BYTES_SOFT: usize = 1024 * 1024;
/// Most requests that one connection may have unanswered.
pub const CONNECTION_REQUESTS_MAX: usize = 16 * 1024;
/// Most bytes of unanswered requests that one connection may hold.
pub const CONNECTION_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of unanswered requests that all connections with pipelined requests hold; beyond it, each has one request under way.
pub const PIPELINED_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Most commands of one text connection that are under way; further ones wait.
pub const TEXT_PIPELINE_MAX: usize = 64;
/// Longest line of the text protocol, in bytes: a command with the largest value.
pub const TEXT_LINE_BYTES_MAX: usize = 9 * 1024 * 1024;
/// Most bytes of unfinished long lines that all text connections of a node may hold.
pub const TEXT_LINES_BYTES: usize = 128 * 1024 * 1024;
/// Most bytes of writes that a node accepts before they are applied, over all shards.
pub const NODE_PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most requests that a node holds unanswered, over all shards and connections.
pub const NODE_PENDING_REQUESTS_MAX: usize = 256 * 1024;
/// Most writes that one shard accepts before they are applied.
pub const SHARD_PENDING_REQUESTS_MAX: usize = 64 * 1024;
/// Most requests of one user that a node has under way, over all connections.
pub const USER_PENDING_REQUESTS_MAX: usize = NODE_PENDING_REQUESTS_MAX / 2;
/// Most bytes of them.
pub const USER_PENDING_BYTES_MAX: usize = NODE_PENDING_BYTES_MAX / 2;
/// Most requests of those who name no user, for each address that they come from, that a node has under way, over all connections.
pub const ADDRESS_PENDING_REQUESTS_MAX: usize = NODE_PENDING_REQUESTS_MAX / 4 * 3;
/// Most bytes of them.
pub const ADDRESS_PENDING_BYTES_MAX: usize = NODE_PENDING_BYTES_MAX / 4 * 3;
/// Most rounds of reads that a node has under way at once; later reads wait and share the next round.
pub const READ_ROUNDS_MAX: usize = 1;
/// Most bytes waiting to be sent to one peer; beyond it the connection is dropped and made anew.
pub const PEER_OUTBOX_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most messages in one frame between nodes.
pub const PEER_FRAME_MESSAGES_MAX: usize = 64 * 1024;
/// Bytes of rows in one page of a scan (its first row may be larger by itself, as far as whoever asks has room for it).
pub const SCAN_PAGE_BYTES: usize = 64 * 1024;
/// Most rows that one page of a scan looks at, tombstones among them: where many keys were deleted, a page may end early.
pub const SCAN_PAGE_LOOKS_MAX: usize = 4 * 1024;
/// Bytes of the smallest page of a list, however many lists are open.
pub const PAGE_BYTES_MIN: usize = 512;
/// Bytes of pages that one list may hold, over all shards.
pub const LIST_PAGES_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of pages that all lists of a node may hold, beyond the smallest pages of each.
pub const LISTS_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of rows that all lists of a node may hold which are larger than a page.
pub const LARGE_ROWS_BYTES: usize = 32 * 1024 * 1024;
/// An answer to a single call that is larger than this takes room in what the node has for such answers, in bytes.
pub const LARGE_ANSWER_BYTES: usize = 4 * 1024;
/// Bytes of answers that a connection with calls in a pipeline may hold without room in that.
pub const PIPELINED_ANSWERS_BYTES: usize = 64 * 1024;
/// A connection with more single calls than these under way is closed if nothing of an answer is taken for [`ANSWER_IDLE_MS`].
pub const UNTAKEN_ANSWERS_MAX: usize = 128;
/// Bytes of large answers to single calls that a node holds until their clients have taken them.
pub const LARGE_ANSWERS_BYTES: usize = 128 * 1024 * 1024;
/// The same of one user, over all connections.
pub const USER_LARGE_ANSWERS_BYTES: usize = LARGE_ANSWERS_BYTES / 2;
/// The same of those who name no user, for each address that they come from.
pub const ADDRESS_LARGE_ANSWERS_BYTES: usize = LARGE_ANSWERS_BYTES / 4 * 3;
/// How long a client may take nothing of a large answer, or of one of many, in milliseconds.
pub const ANSWER_IDLE_MS: u64 = 30_000;
/// The same, while it takes other things of the same connection: the answer may be the last in the queue.
pub const ANSWER_QUEUED_MS: u64 = 300_000;
/// A gRPC message that is larger than this takes room while it comes in, in bytes.
pub const LARGE_MESSAGE_BYTES: usize = 64 * 1024;
/// Bytes of large gRPC messages that a node has begun to receive and that are not whole.
pub const ARRIVING_BYTES: usize = 128 * 1024 * 1024;
/// A frame of a list is sent once it has this many bytes.
pub const LIST_FRAME_BYTES: usize = 64 * 1024;
/// How long a list's reader may take nothing, in milliseconds.
pub const LIST_IDLE_MS: u64 = 30_000;
/// How long a list or another long read may read at one index, in milliseconds.
pub const HELD_READ_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Bytes that a node may write while long reads need older versions, before it gives up the one that costs most; unless it is
/// started with another bound.
pub const HELD_READS_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// Entries kept in memory per shard after they are applied, in bytes, for followers that are just behind.
pub const SHARD_ENTRY_CACHE_BYTES: usize = 256 * 1024;
/// Largest append message between two replicas, in bytes of entries (one entry may be larger by itself).
pub const APPEND_BYTES_MAX: usize = 512 * 1024;
/// Most append messages under way to one replica.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Most snapshots that a node sends at once; other followers that need one wait.
pub const SNAPSHOTS_SENT_MAX: usize = 4;
/// Bytes of one chunk of a snapshot (a chunk holds at least one row).
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of a snapshot's chunks that are under way or about to be stored (one chunk may be larger by itself).
pub const SNAPSHOT_WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// Most chunks of a snapshot that are under way or about to be stored.
pub const SNAPSHOT_WINDOW_CHUNKS: usize = 16;
/// Most nodes in the list that a cluster is born from.
pub const BIRTH_NODES_MAX: usize = 64;
/// Most replicas of one part (voters, learners) in a shard's group.
pub const GROUP_REPLICAS_MAX: usize = BIRTH_NODES_MAX;
/// Most shards of a cluster.
pub const SHARDS_MAX: u32 = 4096;
/// Longest layout on its way to a node, in bytes.
pub const LAYOUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most users of a cluster.
pub const USERS_MAX: usize = 10_000;
/// Most rights of one user.
pub const RIGHTS_OF_A_USER_MAX: usize = 64;
/// Most bytes of all users and their rights together: they stand in the layout.
pub const USERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest hash of a password, in bytes.
pub const PASSWORD_HASH_BYTES_MAX: usize = 256;
/// Longest address of a node, in bytes: a DNS name and a port.
pub const ADDRESS_BYTES_MAX: usize = 262;
/// Most bytes in a node's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Most nodes that a member is inviting into its cluster at once.
pub const INVITATIONS_MAX: usize = 8;
/// How long a member tries to invite a node for a call that does not say how long, in milliseconds.
pub const INVITING_DEFAULT_MS: u32 = 10_000;
/// How long a node that is invited tries to join before it waits for another invitation, in milliseconds.
pub const INVITATION_MS: u64 = 5_000;

/// For how long a leadership that an operator has transferred is left where it is, in milliseconds, before leaders are balanced
/// again.
pub const TRANSFER_HOLD_MS: u64 = 10 * 60 * 1_000;

/// Raft's tick, in milliseconds. All timings below are multiples of it.
pub const TICK_MS: u64 = 25;
/// A leader speaks to its followers at least this often, in milliseconds.
pub const HEARTBEAT_MS: u64 = 100;
/// The shortest election timeout, in milliseconds: that of the replica first in line.
pub const ELECTION_MS: u64 = 500;
/// How long after a majority was asked for its word a leader may read without asking again, in milliseconds: so much less
/// than [`ELECTION_MS`] that clocks may run at speeds that differ by twice and a half.
pub const LEASE_MS: u64 = 200;
/// Width of one replica's band of election timeouts, in milliseconds.
pub const ELECTION_BAND_MS: u64 = 100;
/// From one replica's band to the next one's, in milliseconds.
pub const ELECTION_RANK_MS: u64 = 150;

// Doors and connections.

/// Most connections at once at all doors of a node.
pub const NODE_CONNECTIONS_MAX: usize = 6 * 1024;
/// Most connections at once at one door, unless it has a bound of its own: fewer than at all doors, so that the others
/// have room left when one is full.
pub const DOOR_CONNECTIONS_MAX: usize = 4 * 1024;
/// How long a connection is without a call before it may be closed to make room for a new one, in milliseconds.
pub const CONNECTION_IDLE_MS: u64 = 120_000;
/// Most connections at once of those who watch a node over HTTP.
pub const HTTP_CONNECTIONS_MAX: usize = 32;
/// Most large answers at once over HTTP: those that have not been taken whole yet.
pub const HTTP_LARGE_ANSWERS_MAX: usize = 4;
/// How long such an answer may take until it has been taken, in milliseconds.
pub const HTTP_ANSWER_MS: u64 = 30_000;
/// Connections of other nodes that are taken when there is no place left for clients.
pub const PEER_PLACES: usize = BIRTH_NODES_MAX;
/// Handshakes of TLS at a time at one port.
pub const HANDSHAKES_MAX: usize = 64;
/// Of one address.
pub const HANDSHAKES_OF_ADDRESS_MAX: usize = 16;
/// How long one may take, in milliseconds.
pub const HANDSHAKE_MS: u64 = 3_000;
/// Longest password, in bytes.
pub const AUTH_PASSWORD_BYTES_MAX: usize = 256;
/// Passwords that a node checks at a time; on a machine with fewer than twice as many processors, half as many as these, and one at least.
pub const AUTH_CHECKS_MAX: usize = 2;
/// Passwords that wait to be checked.
pub const AUTH_CHECKS_WAITING_MAX: usize = 64;
/// Right passwords that a node remembers.
pub const AUTH_REMEMBERED_MAX: usize = 8 * 1024;
/// So many wrong passwords of one address, or for one user, are looked at within [`AUTH_WRONG_MS`].
pub const AUTH_WRONG_MAX: u32 = 5;
/// See [`AUTH_WRONG_MAX`], in milliseconds.
pub const AUTH_WRONG_MS: u64 = 60_000;
/// Then none is for this long, in milliseconds; after each further wrong one for twice as long.
pub const AUTH_PAUSE_MIN_MS: u64 = 1_000;
/// But for no longer than this, in milliseconds.
pub const AUTH_PAUSE_MAX_MS: u64 = 60_000;
/// Addresses, and users, of whose wrong passwords a node knows.
pub const AUTH_WRONG_TRACKED_MAX: usize = 4 * 1024;
/// Lines of the audit log that wait to be written.
pub const AUDIT_LINES_MAX: usize = 32 * 1024;
/// How long the answer to an administration act waits until its line is in the audit log, in milliseconds.
pub const AUDIT_WAIT_MS: u64 = 2_000;
/// A client must say what its protocol begins with within this time, in milliseconds.
pub const GREETING_MS: u64 = 5_000;
/// Most calls at once on one gRPC connection.
pub const CONNECTION_STREAMS_MAX: u32 = 1024;
/// Most calls that one gRPC connection may begin and reset within a second: all that it may have at once, four times.
pub const CONNECTION_RESETS_MAX: u32 = 4 * CONNECTION_STREAMS_MAX;
/// Most pings and settings, which are answered, on one gRPC connection within a second. Some clients send one with each answer that they
/// take.
pub const CONNECTION_PINGS_MAX: u32 = 32 * 1024;
/// Bytes under way on one call of a gRPC connection that the node has not read from (HTTP/2's flow control).
pub const CALL_WINDOW_BYTES: u32 = 512 * 1024;
/// The same, of all calls of a connection: so much of what nobody reads from yet is in memory, for each connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Most bytes of headers that one gRPC call may bring.
pub const CALL_HEADER_BYTES_MAX: u32 = 16 * 1024;
/// A gRPC connection that is silent this long is asked whether its client lives, in milliseconds.
pub const PING_MS: u64 = 20_000;
/// It is closed if nothing comes from it within this time, and it takes less than [`TAKEN_BYTES_MIN`], in milliseconds: the answer
/// of a client that reads slowly comes behind megabytes that were under way before the question.
pub const PING_ANSWER_MS: u64 = 60_000;
/// A connection that has taken so much is one whose client reads, in bytes.
pub const TAKEN_BYTES_MIN: usize = 4 * 1024;
/// How long a gRPC message may take to come whole, once it has room, in milliseconds.
pub const MESSAGE_MS: u64 = 30_000;
/// The same, while others wait for room.
pub const MESSAGE_CROWDED_MS: u64 = 5_000;
/// How long a gRPC message may wait for room, in milliseconds.
pub const MESSAGE_ROOM_MS: u64 = 10_000;
/// How long replicas may lag before `kvstore.v1` acknowledges a committed Put without them, in milliseconds.
pub const KVSTORE_LAG_MS: u32 = 2_000;
/// How long a node that stops goes on turning down what a session sends, in milliseconds.
pub const SESSION_STOP_MS: u64 = 100;
/// How long a connection that takes another one's place may be without a call, in milliseconds.
pub const CONNECTION_TRIAL_MS: u64 = 2_000;
/// Bytes of an unfinished line of text that every connection may hold.
pub const TEXT_LINE_BYTES_FREE: usize = 16 * 1024;
/// How long a longer one may take to come whole, in milliseconds.
pub const TEXT_LINE_MS: u64 = 10_000;
/// The same, while others wait for the room that it has.
pub const TEXT_LINE_CROWDED_MS: u64 = 2_000;
/// How long a client of the text door may take nothing of what it is answered, in milliseconds.
pub const TEXT_WRITE_MS: u64 = 30_000;
/// How long a client of the text door may be connected before it says anything, in milliseconds.
pub const TEXT_SILENT_MS: u64 = 600_000;

const _: () = {
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + 1024 < GRPC_MESSAGE_BYTES_MAX);
    assert!(
        CLIENT_MESSAGE_BYTES_MIN >= 2 * KEY_BYTES_MAX && CLIENT_MESSAGE_BYTES_MIN < GRPC_MESSAGE_BYTES_MAX
    );
    assert!(WRITE_BYTES_MAX >= KEY_BYTES_MAX + VALUE_BYTES_MAX + 1024);
    assert!(WRITE_BYTES_MAX + 64 * WRITE_PARTS_MAX < GRPC_MESSAGE_BYTES_MAX);
    assert!(GET_MANY_BYTES_MAX + 64 * GET_MANY_KEYS_MAX < GRPC_MESSAGE_BYTES_MAX);
    assert!(SESSION_OUTCOMES_MAX <= SHARD_OUTCOMES_MAX && SHARD_SESSIONS_MAX <= SHARD_OUTCOMES_MAX);
    assert!(HEARTBEAT_MS.is_multiple_of(TICK_MS) && ELECTION_MS.is_multiple_of(TICK_MS));
    assert!(ELECTION_MS >= 5 * HEARTBEAT_MS);
    assert!(5 * LEASE_MS <= 2 * ELECTION_MS);
    assert!(ELECTION_BAND_MS < ELECTION_RANK_MS);
    assert!(CONNECTION_BYTES_MAX > GRPC_MESSAGE_BYTES_MAX);
    assert!(NODE_PENDING_BYTES_MAX >= 2 * VALUE_BYTES_MAX);
    assert!(SCAN_PAGE_BYTES < VALUE_BYTES_MAX);
    assert!(
        USERS_BYTES_MAX + 2 * 1024 * 1024 < LAYOUT_BYTES_MAX && LAYOUT_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX
    );
    assert!(USERS_MAX * (PASSWORD_HASH_BYTES_MAX + NAME_BYTES_MAX + 64) < USERS_BYTES_MAX);
    assert!(INVITATION_MS < INVITING_DEFAULT_MS as u64);
    assert!(DOOR_CONNECTIONS_MAX < NODE_CONNECTIONS_MAX);
    assert!(TEXT_LINE_BYTES_MAX > KEY_BYTES_MAX + VALUE_BYTES_MAX + 16);
    assert!(ANSWER_IDLE_MS < ANSWER_QUEUED_MS);
    assert!(CALL_WINDOW_BYTES < CONNECTION_WINDOW_BYTES);
    assert!(USER_LARGE_ANSWERS_BYTES >= 4 * GET_MANY_BYTES_MAX);
    assert!(ARRIVING_BYTES >= 4 * GRPC_MESSAGE_BYTES_MAX);
    assert!(TEXT_LINES_BYTES >= 4 * TEXT_LINE_BYTES_MAX);
};
