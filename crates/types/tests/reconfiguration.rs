//! Changes of configuration: their bytes, and which of them can follow on what.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use ringfort_types::ConfigurationChange::{AddLearner, EnterJoint, LeaveJoint, RemoveLearner};
use ringfort_types::limits::GROUP_REPLICAS_MAX;
use ringfort_types::wire::Reader;
use ringfort_types::{CanNotFollow, Configuration, ConfigurationChange, Index, NodeId, PeerId, Replica};

fn replica(number: u64) -> Replica {
    Replica { node: NodeId(number), peer: PeerId(100 + number) }
}

fn replicas(numbers: impl IntoIterator<Item = u64>) -> Vec<Replica> {
    numbers.into_iter().map(replica).collect()
}

fn peers(numbers: &[u64]) -> Vec<PeerId> {
    numbers.iter().map(|number| replica(*number).peer).collect()
}

/// Of ten replicas, so that they often meet.
fn change() -> impl Strategy<Value = ConfigurationChange> {
    let all = (1u64..=10).collect::<Vec<_>>();
    prop_oneof![
        (1u64..=10).prop_map(|number| AddLearner(replica(number))),
        (1u64..=10).prop_map(|number| RemoveLearner(replica(number).peer)),
        (proptest::sample::subsequence(all, 1..=5).prop_shuffle(), 0usize..=5).prop_map(|(numbers, at)| {
            let (promote, demote) = numbers.split_at(at.min(numbers.len()));
            EnterJoint { promote: peers(promote), demote: peers(demote) }
        }),
        Just(LeaveJoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_change_comes_back_as_it_was_and_every_cut_is_noticed(change in change()) {
        let bytes = change.encode();
        prop_assert_eq!(ConfigurationChange::decode(bytes.clone()), Ok(change));
        for length in 0..bytes.len() {
            prop_assert!(ConfigurationChange::decode(bytes.slice(..length)).is_err(), "{}", length);
        }
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(ConfigurationChange::decode(longer.into()).is_err());
    }

    #[test]
    fn what_decodes_is_what_is_encoded(bytes in proptest::collection::vec(0u8..8, 0..12)) {
        let bytes = Bytes::from(bytes);
        if let Ok(change) = ConfigurationChange::decode(bytes.clone()) {
            prop_assert_eq!(change.encode(), bytes);
        }
    }

    /// Whatever is proposed in whatever order, each configuration on the way can be written down and read back: it says
    /// itself what can't be ([`Configuration::read`]).
    #[test]
    fn whatever_follows_can_be(asked in proptest::collection::vec(change(), 0..40)) {
        let mut configuration = Configuration::born(replicas(1..=3));
        for (at, change) in (1..).map(Index).zip(asked) {
            let Ok(next) = configuration.after(&change, at) else { continue };
            let mut bytes = BytesMut::new();
            next.put(&mut bytes);
            let read = Configuration::read(&mut Reader::new(bytes.freeze()), at);
            prop_assert_eq!(read, Ok(next.clone()));
            prop_assert!(!next.voters.is_empty());
            configuration = next;
        }
    }
}

#[test]
fn changes_are_laid_out_as_drawn() {
    let add = Replica { node: NodeId(5), peer: PeerId(300) };
    let enter = EnterJoint { promote: vec![PeerId(7), PeerId(300)], demote: vec![PeerId(9)] };
    for (change, bytes) in [
        (AddLearner(add), &[1, 1, 5, 0xAC, 2][..]),
        (RemoveLearner(PeerId(9)), &[1, 2, 9]),
        (enter, &[1, 3, 2, 7, 0xAC, 2, 1, 9]),
        (LeaveJoint, &[1, 4]),
    ] {
        assert_eq!(&change.encode()[..], bytes);
    }
    let senseless: [&[u8]; 11] = [
        &[],
        &[2, 4],
        &[1, 0],
        &[1, 5],
        &[1, 1, 0, 9],
        &[1, 1, 9, 0],
        &[1, 2, 0],
        &[1, 3, 0, 0],
        &[1, 3, 1, 7, 1, 7],
        &[1, 3, 2, 7, 7, 0],
        &[1, 4, 0],
    ];
    for bytes in senseless {
        assert!(ConfigurationChange::decode(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
    }
    let many = EnterJoint { promote: (1..=65).map(PeerId).collect(), demote: Vec::new() };
    assert!(ConfigurationChange::decode(many.encode()).is_err());
}

#[test]
fn voters_are_replaced_by_way_of_a_joint_configuration() {
    let born = Configuration::born(replicas(1..=3));
    let with_learner = born.after(&AddLearner(replica(4)), Index(5)).unwrap();
    assert_eq!(with_learner, Configuration { at: Index(5), learners: replicas([4]), ..born.clone() });
    let enter = EnterJoint { promote: peers(&[4]), demote: peers(&[1]) };
    let joint = with_learner.after(&enter, Index(6)).unwrap();
    let expected = Configuration {
        at: Index(6),
        voters: replicas([2, 3, 4]),
        outgoing: replicas(1..=3),
        learners: Vec::new(),
        learners_next: replicas([1]),
    };
    assert_eq!(joint, expected);
    let left = joint.after(&LeaveJoint, Index(7)).unwrap();
    let expected = Configuration {
        at: Index(7),
        voters: replicas([2, 3, 4]),
        learners: replicas([1]),
        ..Configuration::default()
    };
    assert_eq!(left, expected);
    let last = left.after(&RemoveLearner(replica(1).peer), Index(8)).unwrap();
    assert_eq!(last, Configuration { at: Index(8), learners: Vec::new(), ..left });
}

#[test]
fn what_can_not_follow_is_refused() {
    let born = Configuration::born(replicas(1..=3));
    let refused =
        |group: &Configuration, change: &ConfigurationChange| group.after(change, Index(9)).unwrap_err();
    let enter =
        |promote: &[u64], demote: &[u64]| EnterJoint { promote: peers(promote), demote: peers(demote) };

    let other_peer = Replica { node: NodeId(2), peer: PeerId(7) };
    let other_node = Replica { node: NodeId(7), peer: replica(2).peer };
    assert_eq!(refused(&born, &AddLearner(other_peer)), CanNotFollow::Node(NodeId(2)));
    assert_eq!(refused(&born, &AddLearner(other_node)), CanNotFollow::Peer(replica(2).peer));
    assert_eq!(refused(&born, &RemoveLearner(replica(2).peer)), CanNotFollow::NoLearner(replica(2).peer));
    assert_eq!(refused(&born, &RemoveLearner(PeerId(9))), CanNotFollow::NoLearner(PeerId(9)));
    assert_eq!(refused(&born, &enter(&[2], &[])), CanNotFollow::NoLearner(replica(2).peer));
    assert_eq!(refused(&born, &enter(&[], &[4])), CanNotFollow::NoVoter(replica(4).peer));
    assert_eq!(refused(&born, &enter(&[], &[2, 2])), CanNotFollow::NoVoter(replica(2).peer));
    assert_eq!(refused(&born, &enter(&[], &[1, 2, 3])), CanNotFollow::NobodyDecides);
    assert_eq!(refused(&born, &enter(&[], &[])), CanNotFollow::Nothing);
    assert_eq!(refused(&born, &LeaveJoint), CanNotFollow::NotJoint);

    let joint = born.after(&enter(&[], &[3]), Index(4)).unwrap();
    for change in [AddLearner(replica(5)), RemoveLearner(replica(3).peer), enter(&[], &[1])] {
        assert_eq!(refused(&joint, &change), CanNotFollow::Joint);
    }
    let learner = joint.after(&LeaveJoint, Index(5)).unwrap();
    assert_eq!(refused(&learner, &enter(&[], &[3])), CanNotFollow::NoVoter(replica(3).peer));

    let many = GROUP_REPLICAS_MAX as u64;
    let full = Configuration { learners: replicas(2..=many + 1), ..Configuration::born(replicas([1])) };
    assert_eq!(refused(&full, &AddLearner(replica(many + 2))), CanNotFollow::TooMany);
    let all: Vec<u64> = (2..=many + 1).collect();
    assert_eq!(refused(&full, &enter(&all, &[])), CanNotFollow::TooMany);
    let two = Configuration { voters: replicas([1, many + 2]), ..full };
    assert_eq!(refused(&two, &enter(&[], &[1])), CanNotFollow::TooMany, "it would be one learner too many");
}
