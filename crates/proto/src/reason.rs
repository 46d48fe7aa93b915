//! Why a connection failed or broke, in words. What the libraries between us and the socket say of it is long and says little;
//! the cause lies at the end of their chain.

/// What is said if nobody listens there.
pub const REFUSED: &str = "connection refused";

/// The innermost cause of a failed connection, in words.
pub fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    loop {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                std::io::ErrorKind::ConnectionRefused => REFUSED.into(),
                std::io::ErrorKind::TimedOut => "it does not answer".into(),
                std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe => {
                    "the connection broke".into()
                }
                _ => io.to_string(),
            };
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return cause.to_string(),
        }
    }
}
