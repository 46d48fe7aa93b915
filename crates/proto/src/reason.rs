//! Why a connection failed or broke, in words. What the libraries between us and the socket say of it is long and says little;
//! the cause lies at the end of their chain.

use std::error::Error;
use std::io;

/// What is said if nobody listens there.
pub const REFUSED: &str = "connection refused";
/// What is said if there was a connection.
pub const BROKE: &str = "the connection broke";
/// What is said if the other side wants TLS and there is none.
const TLS_ONLY: &str = "it speaks TLS only: give the CA of its cluster (--ca)";
/// What `h2`'s frame reader says of a connection that ends within a frame, in an error of no kind.
const CUT_FRAME: &str = "bytes remaining on stream";

/// The innermost cause of a failed connection, in words.
pub fn reason(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    let mut has_closed = false;
    loop {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return io_reason(io);
        }
        let told = cause.downcast_ref::<h2::Error>().filter(|error| error.is_go_away() && error.is_remote());
        if told.is_some_and(|error| error.reason() == Some(h2::Reason::INADEQUATE_SECURITY)) {
            return TLS_ONLY.into();
        }
        // It does not say that this is its source.
        if let Some(io) = cause.downcast_ref::<h2::Error>().and_then(h2::Error::get_io) {
            return io_reason(io);
        }
        has_closed |= cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(|error| error.is_closed() || error.is_canceled() || error.is_incomplete_message());
        match cause.source() {
            Some(source) => cause = source,
            None if has_closed => return BROKE.into(),
            None => return cause.to_string(),
        }
    }
}

fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => REFUSED.into(),
        io::ErrorKind::TimedOut => "it does not answer".into(),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => BROKE.into(),
        _ => {
            let said = error.to_string();
            if said.starts_with(CUT_FRAME) { BROKE.into() } else { said }
        }
    }
}
