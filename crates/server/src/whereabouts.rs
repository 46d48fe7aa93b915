//! Where a member is, and where it looks for the others.
//!
//! The layout says where members are. A member is known by its incarnation, so it may be elsewhere, and so may the others: what its flags say
//! of them (`--peers`, `--join`) holds until the layout has another address for them, and what they say themselves
//! ([`Node::moved`](ringfort_node::Node::moved)) comes first.

use std::collections::BTreeMap;
use std::path::Path;

use ringfort_ring::{Layout, Member};
use ringfort_storage::{DataDir, FileDisk};
use ringfort_types::limits::BIRTH_NODES_MAX;
use ringfort_types::{NodeId, split_address};

use crate::config::Config;
use crate::error::StartError;

/// Where a member's flags say that the others are, other than where the layout has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Those whose names were given.
    pub(crate) named: BTreeMap<NodeId, String>,
    /// Addresses of whomever: whoever is not found elsewhere is looked for at each.
    pub(crate) unnamed: Vec<String>,
}

/// Whether a node lives in this directory.
pub(crate) fn is_used(data_dir: &Path) -> bool {
    data_dir.join("identity").exists()
}

/// The address that a directory's node had last, if one lives there.
pub(crate) fn last_address(data_dir: &Path) -> Result<Option<String>, StartError> {
    if !is_used(data_dir) {
        return Ok(None);
    }
    let Some((stored, layout)) = DataDir::peek(&FileDisk::open(data_dir)?)? else { return Ok(None) };
    let layout = layout.and_then(|bytes| Layout::decode(bytes).ok());
    let member = layout
        .iter()
        .flat_map(|layout| &layout.members)
        .find(|member| member.incarnation == stored.incarnation);
    Ok(Some(member.map_or(stored.address, |member| member.address.clone())))
}

/// Refuses an address that the others could not use, or that one of them has who is not said to be elsewhere.
pub(crate) fn check_own(
    config: &Config,
    me: NodeId,
    address: &str,
    layout: &Layout,
    told: &Told,
) -> Result<(), StartError> {
    let before = layout.member(me).map_or("", |member| &member.address);
    let mut others = layout.members.iter().filter(|member| member.id != me).peekable();
    if before == address || others.peek().is_none() {
        return Ok(());
    }
    let host = split_address(address).map_or("", |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        return Err(StartError::Usage(format!(
            "{} is every address of this machine, and none that the other nodes could use, which know this one at {before}: say --advertise \
             {before}, or, if it is elsewhere now, --advertise with that address",
            config.listen
        )));
    }
    if config.advertise.is_none() && config.listen.ends_with(":0") {
        return Err(StartError::Usage(format!(
            "port 0 is another one at each start, and the other nodes know this one at {before}: choose a port"
        )));
    }
    match others.find(|member| member.address == address && !told.named.contains_key(&member.id)) {
        None => Ok(()),
        Some(Member { name, .. }) => Err(StartError::Usage(format!(
            "{address} is the address of {name}: start this node with another --addr or --advertise; if {name} is elsewhere now, say where: \
             --peers {name}=HOST:PORT; if it is gone for good, remove it first: ringfort cluster remove {name}"
        ))),
    }
}

/// What a member's flags say of the others. `born` is what its cluster was born with, `layout` what it knows now.
pub(crate) fn told(
    config: &Config,
    me: NodeId,
    address: &str,
    born: &Layout,
    layout: &Layout,
) -> Result<Told, StartError> {
    let mut told = Told::default();
    let at = |layout: &Layout, address: &str| layout.members.iter().any(|member| member.address == *address);
    let named = |layout: &Layout, name: &str| {
        layout
            .members
            .iter()
            .find(|member| member.name == *name)
            .map(|member| (member.id, member.address.clone()))
    };
    let mut listed = 0;
    for (name, given) in config.peers.iter().filter(|(_, given)| given != address) {
        let Some(name) = name else {
            if !at(layout, given) && !at(born, given) {
                told.unnamed.push(given.clone());
            }
            listed += 1;
            continue;
        };
        match named(layout, name) {
            // It may be in the list under its old address.
            Some((id, _)) if id == me => {}
            Some((id, known)) => {
                listed += 1;
                if known != *given {
                    told.named.insert(id, given.clone());
                }
            }
            // It was a member once.
            None if named(born, name).is_some() => {}
            None => return Err(stranger(&format!("{name}={given}"), me, layout)),
        }
    }
    let others = layout.members.len().max(born.members.len()) - 1;
    if let Some(given) = told.unnamed.first()
        && listed > others
    {
        return Err(stranger(given, me, layout));
    }
    let joined =
        config.join.iter().filter(|given| *given != address && !at(layout, given) && !at(born, given));
    told.unnamed.extend(joined.take(BIRTH_NODES_MAX).cloned());
    Ok(told)
}

fn stranger(given: &str, me: NodeId, layout: &Layout) -> StartError {
    let others = layout.members.iter().filter(|member| member.id != me);
    let others: Vec<String> = others.map(|member| format!("{}={}", member.name, member.address)).collect();
    let flags =
        if others.is_empty() { "no --peers".to_owned() } else { format!("--peers {}", others.join(",")) };
    StartError::Usage(format!(
        "--peers {given}: that is no member of this node's cluster: start it with its old flags, {flags}, or with none; a new node is added \
         by starting it with --join"
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use ringfort_types::{Incarnation, LayoutChange, Level, Standing};

    use super::*;

    fn born() -> Layout {
        three_at("host")
    }

    /// Members n1 to n3, on ports 1 to 3 of this host.
    pub(crate) fn three_at(host: &str) -> Layout {
        let member = |id: u64| Member {
            id: NodeId(id),
            name: format!("n{id}"),
            address: format!("{host}:{id}"),
            incarnation: Incarnation(id),
            weight: 1,
            zone: String::new(),
            standing: Standing::Active,
            max: Level::MIN,
        };
        Layout::first((1..=3).map(member).collect(), 7, 4, 3).expect("a cluster")
    }

    fn peers(peers: &[(&str, &str)]) -> Config {
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let peers = peers.iter().map(|(called, at)| (name(called), (*at).to_owned())).collect();
        Config { peers, ..Config::new("127.0.0.1:1", "/nowhere") }
    }

    fn of(config: &Config) -> Result<Told, String> {
        let born = born();
        let moved = LayoutChange::Move(vec![(NodeId(3), "moved:3".into())]);
        let layout = born.after(&moved).expect("it is free");
        told(config, NodeId(1), "host:1", &born, &layout).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_known_already_is_nothing_new() {
        for same in [
            peers(&[]),
            peers(&[("n2", "host:2"), ("n3", "moved:3")]),
            peers(&[("", "host:2"), ("", "moved:3")]),
            // As it was at birth, without names.
            peers(&[("", "host:2"), ("", "host:3")]),
            peers(&[("n1", "elsewhere:1"), ("n2", "host:2")]),
            Config { join: vec!["host:2".into(), "host:3".into(), "moved:3".into()], ..peers(&[]) },
        ] {
            assert_eq!(of(&same), Ok(Told::default()), "{:?}", same.peers);
        }
    }

    #[test]
    fn others_are_looked_for_where_they_are_said_to_be() {
        let told = of(&peers(&[("n2", "new:2"), ("n3", "host:3")])).expect("good");
        let named = [(NodeId(2), "new:2".to_owned()), (NodeId(3), "host:3".to_owned())];
        assert_eq!(told, Told { named: named.into(), unnamed: Vec::new() });
        let told = of(&peers(&[("", "new:2"), ("n3", "moved:3")])).expect("good");
        assert_eq!(told, Told { unnamed: vec!["new:2".into()], ..Told::default() });
        let joined = Config { join: vec!["any:1".into(), "host:2".into()], ..peers(&[]) };
        assert_eq!(of(&joined), Ok(Told { unnamed: vec!["any:1".into()], ..Told::default() }));
    }

    #[test]
    fn strangers_are_refused_with_who_the_members_are() {
        for more in [
            peers(&[("n2", "host:2"), ("n4", "host:4")]),
            peers(&[("", "host:2"), ("", "host:3"), ("", "host:4")]),
        ] {
            let refused = of(&more).expect_err("there is no such member");
            for says in ["host:4", "n2=host:2,n3=moved:3", "--join"] {
                assert!(refused.contains(says), "{says}: {refused}");
            }
        }
    }

    #[test]
    fn an_address_that_the_others_could_not_use_or_that_one_has_is_refused() {
        let check = |listen: &str, address: &str, told: &Told| {
            let config = Config::new(listen, "/nowhere");
            check_own(&config, NodeId(1), address, &born(), told).map_err(|error| error.to_string())
        };
        let nobody = Told::default();
        assert_eq!(check("host:1", "host:1", &nobody), Ok(()));
        assert_eq!(check("host:9", "host:9", &nobody), Ok(()));
        for (listen, address, says) in [
            ("0.0.0.0:1", "0.0.0.0:1", "--advertise host:1"),
            ("[::]:1", "[::]:1", "--advertise host:1"),
            ("host:0", "host:4711", "choose a port"),
            ("host:2", "host:2", "--peers n2=HOST:PORT"),
        ] {
            let refused = check(listen, address, &nobody).expect_err(address);
            assert!(refused.contains(says), "{refused}");
        }
        let elsewhere = Told { named: [(NodeId(2), "new:2".to_owned())].into(), ..Told::default() };
        assert_eq!(check("host:2", "host:2", &elsewhere), Ok(()));
    }
}
