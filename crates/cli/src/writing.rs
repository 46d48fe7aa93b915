//! How many copies writes are to have, and what is said of one that has fewer.
//!
//! A write that is committed stays, however long more copies of it take. So too few of them are neither a failure nor all that
//! was asked for: what is printed on stdout is as always, then comes a line on stderr, and the exit code is 3.

use clap::Args;
use ringfort_client::Options;
use ringfort_types::Receipt;

use crate::stop::Stop;

/// How to write.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Writing {
    /// Wait until so many replicas have it on disk [default: a majority]; if --timeout is over before: exit code 3, and the
    /// write stands
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    copies: Option<u32>,
}

impl Writing {
    /// Has a client write so.
    pub(crate) fn apply(self, options: &mut Options) {
        options.copies = self.copies.unwrap_or(0);
    }

    /// Whether a write that was done has as many copies as asked for.
    pub(crate) fn judge(self, receipt: &Receipt) -> Result<(), Stop> {
        let (asked, copies) = (self.copies.unwrap_or(0), receipt.copies);
        if copies >= asked {
            return Ok(());
        }
        let are = if copies == 1 { "is" } else { "are" };
        Err(Stop::unavailable(format!("written, but only {copies} of {asked} copies {are} on disk so far")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_copies_are_told() {
        let judged = |copies: Option<u32>, receipt: u32| {
            Writing { copies }.judge(&Receipt { copies: receipt, ..Receipt::default() })
        };
        assert_eq!((judged(None, 2), judged(Some(1), 2), judged(Some(2), 2)), (Ok(()), Ok(()), Ok(())));
        let few = "written, but only 2 of 3 copies are on disk so far";
        assert_eq!(judged(Some(3), 2), Err(Stop::unavailable(few)));
        let one = "written, but only 1 of 3 copies is on disk so far";
        assert_eq!(judged(Some(3), 1), Err(Stop::unavailable(one)));
    }
}
