//! How many copies a shard gets, when so many were asked for and there are so many nodes.

use ringfort_types::count;
/// The number of voters for each shard, and a warning for people if it isn't what was asked for or is a poor
/// choice.
///
/// Raft needs a majority, so an even number of copies survives no more failures than the odd number below it:
/// it is rounded up to the next odd number if there are nodes for that, else down. Two nodes are the
/// exception: two voters keep a second copy of everything, but either's loss stops the writes.
pub fn effective_copies(asked: u32, nodes: u32) -> (u32, Option<String>) {
    let asked = asked.max(1);
    let there = asked.min(nodes.max(1));
    let copies = match there {
        2 if nodes == 2 => 2,
        odd if odd % 2 == 1 => odd,
        even if even < nodes => even + 1,
        even => even - 1,
    };
    let warning = if copies == 2 {
        Some(
            "two nodes hold two copies of everything, but writes stop while either is down; \
             add a third node to survive the loss of one"
                .to_owned(),
        )
    } else if copies == asked {
        None
    } else if asked > nodes {
        Some(format!(
            "{asked} copies were asked for, but there {}: each shard gets {copies}, \
             and survives the loss of {}",
            if nodes == 1 { "is one node".to_owned() } else { format!("are {nodes} nodes") },
            match (copies - 1) / 2 {
                0 => "none".to_owned(),
                lost => count(lost.into(), "node", "nodes"),
            },
        ))
    } else {
        Some(format!(
            "{asked} copies survive no more failures than {}: each shard gets {copies} instead",
            asked - 1
        ))
    };
    (copies, warning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_numbers_are_rounded_up_if_there_are_nodes_for_it_else_down() {
        let copies = |asked, nodes| effective_copies(asked, nodes).0;
        assert_eq!(copies(2, 3), 3);
        assert_eq!(copies(4, 5), 5);
        assert_eq!(copies(4, 4), 3);
        assert_eq!(copies(5, 4), 3);
        assert_eq!(copies(3, 9), 3);
        assert_eq!(copies(1, 9), 1);
        assert_eq!(copies(0, 9), 1);
    }

    #[test]
    fn two_nodes_are_two_voters_and_a_warning() {
        for asked in [2, 3, 5] {
            let (copies, warning) = effective_copies(asked, 2);
            assert_eq!(copies, 2);
            assert!(warning.expect("a warning").contains("third node"));
        }
        assert_eq!(effective_copies(1, 2), (1, None));
    }

    #[test]
    fn whoever_gets_something_else_than_asked_for_is_told() {
        for asked in 1..9 {
            for nodes in 1..9 {
                let (copies, warning) = effective_copies(asked, nodes);
                assert!(copies <= nodes && copies >= 1);
                assert_eq!(warning.is_some(), copies != asked || copies == 2, "{asked} asked, {nodes} nodes");
            }
        }
    }
}
