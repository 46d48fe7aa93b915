//! A door's bounds, with small numbers.

use ringfort_types::limits::TAKEN_BYTES_MIN;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::*;

const GREETING_MAX: Duration = Duration::from_millis(300);
/// Whatever is to happen at once has so long.
const SOON: Duration = Duration::from_secs(5);

/// A door with so many places, and how to reach it.
async fn door(connections_max: usize, greeting: Greeting, places: &Places) -> (Incoming, SocketAddr) {
    let (listener, _) = bind("--addr", "127.0.0.1:0", false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = DoorLimits { connections_max, greeting, greeting_max: GREETING_MAX, full_answer: b"full\n" };
    (Incoming::new("test", listener, limits, places, None), address)
}

async fn next(incoming: &mut Incoming) -> Connection {
    tokio::time::timeout(SOON, incoming.next()).await.expect("soon").expect("it never ends").unwrap()
}

/// Whether nobody is there, for this long.
async fn nobody(incoming: &mut Incoming, time: Duration) -> bool {
    tokio::time::timeout(time, incoming.next()).await.is_err()
}

/// What the door says until it closes.
async fn said(client: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let closed = tokio::time::timeout(SOON, client.read_to_end(&mut said)).await.expect("closed");
    assert!(closed.is_ok_and(|bytes| bytes == said.len()));
    said
}

/// A client that says something.
async fn greets(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"!").await.unwrap();
    client
}

#[tokio::test]
async fn one_too_many_is_told_so_and_the_others_go_on() {
    let (mut incoming, address) = door(2, Greeting::FirstByte, &Places::new(100, 2)).await;
    let (mut first, _second) = (greets(address).await, greets(address).await);
    let (mut served, other) = (next(&mut incoming).await, next(&mut incoming).await);

    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(nobody(&mut incoming, Duration::from_millis(50)).await);
    assert_eq!(said(&mut third).await, b"full\n");

    first.write_all(b"still there?").await.unwrap();
    let mut heard = [0; 12];
    served.read_exact(&mut heard[..1]).await.unwrap();
    served.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still there?");

    drop(other);
    let _fourth = greets(address).await;
    next(&mut incoming).await;
}

#[tokio::test]
async fn all_doors_share_the_nodes_places() {
    let places = Places::new(3, 2);
    let (mut text, text_address) = door(2, Greeting::FirstByte, &places).await;
    let (mut grpc, grpc_address) = door(2, Greeting::FirstByte, &places).await;
    let _clients = (greets(text_address).await, greets(text_address).await, greets(grpc_address).await);
    let held = (next(&mut text).await, next(&mut text).await, next(&mut grpc).await);

    let mut over = TcpStream::connect(grpc_address).await.unwrap();
    assert!(nobody(&mut grpc, Duration::from_millis(50)).await, "the node is full, this door is not");
    assert_eq!(said(&mut over).await, b"full\n");
    drop(held.0);
    let _client = greets(grpc_address).await;
    next(&mut grpc).await;
}

#[tokio::test]
async fn who_does_not_greet_in_time_is_closed_and_gives_its_place_back() {
    let (mut incoming, address) = door(1, Greeting::Http2, &Places::new(100, 2)).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(&HTTP2_PREFACE[..20]).await.unwrap();
    let begun = std::time::Instant::now();
    assert!(nobody(&mut incoming, GREETING_MAX + Duration::from_millis(100)).await);
    // Unread input may turn the end into a reset; it is the end.
    let _end = tokio::time::timeout(SOON, silent.read_to_end(&mut Vec::new())).await.expect("closed");
    assert!(begun.elapsed() >= GREETING_MAX);

    let mut greets = TcpStream::connect(address).await.unwrap();
    greets.write_all(&[&HTTP2_PREFACE[..], &[0; HTTP2_FRAME_HEADER_BYTES]].concat()).await.unwrap();
    assert!(next(&mut incoming).await.understood());
}

#[tokio::test]
async fn a_greeting_may_come_byte_by_byte_and_is_read_again_by_the_door() {
    let (mut incoming, address) = door(1, Greeting::Http2, &Places::new(100, 2)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.set_nodelay(true).unwrap();
    let said = [&HTTP2_PREFACE[..], &[7; HTTP2_FRAME_HEADER_BYTES], b"more"].concat();
    let sent = said.clone();
    let sending = tokio::spawn(async move {
        for byte in sent {
            client.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client
    });
    let mut connection = next(&mut incoming).await;
    assert!(connection.understood());
    assert_eq!(connection.greeting(), &said[..GREETING_BYTES_MAX]);
    let mut heard = vec![0; said.len()];
    // In pieces smaller than the greeting.
    for piece in heard.chunks_mut(10) {
        connection.read_exact(piece).await.unwrap();
    }
    assert_eq!(heard, said);
    let _client = sending.await.unwrap();
}

#[tokio::test]
async fn another_protocol_is_handed_over_as_soon_as_it_differs() {
    let (mut incoming, address) = door(3, Greeting::Http2, &Places::new(100, 2)).await;
    for said in [&b"G"[..], b"PRI * HTTP/1.1\r\n\r\n", b"\x16\x03\x01"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(said).await.unwrap();
        let connection = next(&mut incoming).await;
        assert!(!connection.understood());
        assert_eq!(connection.greeting(), said);
    }
}

#[tokio::test]
async fn one_byte_is_greeting_enough_for_a_door_that_says_so() {
    let (mut incoming, address) = door(1, Greeting::FirstByte, &Places::new(100, 2)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(nobody(&mut incoming, Duration::from_millis(50)).await);
    client.write_all(b"\n").await.unwrap();
    let mut connection = next(&mut incoming).await;
    assert!(connection.understood());
    assert_eq!(connection.read_u8().await.unwrap(), b'\n');
}

#[tokio::test]
async fn many_silent_connections_keep_nobody_waiting() {
    let (mut incoming, address) = door(400, Greeting::FirstByte, &Places::new(1_000, 2)).await;
    let mut silent = Vec::new();
    let connecting = async {
        for _ in 0..150 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        (client, std::time::Instant::now())
    };
    let ((_client, begun), _connection) = tokio::join!(connecting, next(&mut incoming));
    assert!(begun.elapsed() < GREETING_MAX, "it waited for the others' time to be over");
}

#[tokio::test]
async fn many_may_come_at_once() {
    let (mut incoming, address) = door(400, Greeting::FirstByte, &Places::new(1_000, 2)).await;
    let begun = std::time::Instant::now();
    let mut clients = Vec::new();
    // Nobody accepts meanwhile.
    for _ in 0..250 {
        clients.push(greets(address).await);
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "TCP had to try again");
    for _ in 0..250 {
        next(&mut incoming).await;
    }
}

#[tokio::test]
async fn a_connection_lives_as_long_as_it_says_or_takes_something() {
    let (mut incoming, address) = door(9, Greeting::Http2, &Places::new(100, 2)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HTTP2_PREFACE).await.unwrap();
    client.write_all(&[0; HTTP2_FRAME_HEADER_BYTES]).await.unwrap();
    let mut served = next(&mut incoming).await;
    let mut greeting = [0; GREETING_BYTES_MAX];
    served.read_exact(&mut greeting).await.unwrap();

    tokio::time::pause();
    let nearly = SILENCE_MAX.mul_f32(0.99);
    let lives = async |served: &mut Connection| timeout(nearly, served.read_u8()).await.is_err();
    for _ in 0..3 {
        served.write_all(&[7; TAKEN_BYTES_MIN]).await.unwrap();
        assert!(lives(&mut served).await, "it takes something");
    }
    for _ in 0..3 {
        client.write_all(b"!").await.unwrap();
        // Paused time runs on while a test waits for the socket.
        let Socket::Plain(stream) = &served.stream else { panic!("there is no TLS here") };
        stream.readable().await.unwrap();
        served.read_exact(&mut [0]).await.unwrap();
        assert!(lives(&mut served).await, "it says something");
    }
    // A question that nobody answers is not much.
    served.write_all(&[7; 17]).await.unwrap();
    let ended = timeout(Duration::from_secs(2), served.read(&mut [0])).await;
    assert_eq!(ended.expect("it is closed").unwrap(), 0);
}

#[tokio::test]
async fn a_connection_that_is_closed_ends_although_nobody_takes_what_is_written() {
    let (mut incoming, address) = door(9, Greeting::Http2, &Places::new(100, 2)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HTTP2_PREFACE).await.unwrap();
    client.write_all(&[0; HTTP2_FRAME_HEADER_BYTES]).await.unwrap();
    let mut served = next(&mut incoming).await;
    let standing = served.standing().clone();
    let writing = tokio::spawn(async move { while served.write_all(&[7; 4096]).await.is_ok() {} });
    standing.close(Closed::Silent);
    timeout(SOON, writing).await.expect("it ends").unwrap();
}

/// Closing a socket that is still written to would reset it, and the client might not read the last words.
#[tokio::test]
async fn who_is_told_the_last_words_may_go_on_writing_for_a_while() {
    let (mut incoming, address) = door(1, Greeting::Http2, &Places::new(100, 2)).await;
    let greeting = [&HTTP2_PREFACE[..], &[0; HTTP2_FRAME_HEADER_BYTES]].concat();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&greeting).await.unwrap();
    let mut connection = next(&mut incoming).await;
    let ending = tokio::spawn(async move {
        connection.write_all(b"the last words").await.unwrap();
        connection.shutdown().await.unwrap();
    });
    for _ in 0..5 {
        client.write_all(&[7; 10_000]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(said(&mut client).await, b"the last words");
    client.write_all(b"so long").await.expect("it was not reset");
    drop(client);
    timeout(SOON, ending).await.expect("soon").unwrap();

    let mut stays = TcpStream::connect(address).await.unwrap();
    stays.write_all(&greeting).await.unwrap();
    let mut connection = next(&mut incoming).await;
    timeout(SOON, connection.shutdown()).await.expect("its time is over").unwrap();
}
