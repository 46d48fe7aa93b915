//! How a client's nodes are reached, and as whom.

use ringfort_tls::Way;
use ringfort_types::Failure;

use crate::Options;
use crate::credentials::Authorization;

/// The same for all of them.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) way: Way,
    pub(crate) authorization: Authorization,
}

impl Reach {
    pub(crate) fn new(options: &Options) -> Result<Reach, Failure> {
        Ok(Reach { way: options.way(), authorization: options.authorization()? })
    }
}
