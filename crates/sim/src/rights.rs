//! Rights, in some seeds: they are enforced from early on, clients are users, and guests come and go.
//!
//! Most calls are a regular's, who may read and write everything and stays. The others are a guest's, of whom there is one after the other,
//! each removed a while after they came, and often ask on; or nobody's. Numbers of users are never used twice, so a node that has once heard
//! that somebody is gone never takes them in again.
//!
//! What is looked at: whoever may do something is not refused for want of a right, however little some nodes have heard; and nothing is
//! done for whoever is gone, if the node that took the call or the shard's leader knew it when the call was made. An acknowledgement tells
//! which leader that was; but for a write that has a place in a session, which may be a repetition of one that was done when its sender still
//! could. (Who may do what in detail is `ringfort-types`'s business.)

use ringfort_types::{
    Access, Code, LayoutChange, Principal, Receipt, Reply, Request, Right, UserChange, Users,
};

use crate::clients::Asker;
use crate::judges::RIGHTS_ARE_KEPT;
use crate::random::Random;
use crate::world::{Next, World};

/// How many of a hundred seeds have users.
const USERS_PERCENT: u64 = 25;
/// Of a hundred calls of clients, those of a guest.
const GUESTS_PERCENT: u64 = 25;
/// Those behind this are nobody's.
const SOMEBODY_PERCENT: u64 = 98;
/// Between two changes of users, at most, in microseconds.
const STEP_US: u64 = 600_000;
/// How long a guest stays at most, in microseconds.
const STAY_US: u64 = 3_000_000;

/// Whoever changes the cluster, and looks at it.
const OPERATOR: &str = "operator";
const REGULAR: &str = "regular";

/// What has become of users so far.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    /// How many changes are made.
    made: usize,
    operator: Option<Principal>,
    regular: Option<Principal>,
    /// The one who is there, or has been last.
    guest: Option<Principal>,
}

/// Whether a seed has users. Drawn apart from everything else, so that other seeds are as they were.
pub(crate) fn has_users(seed: u64) -> bool {
    Random::new(seed ^ 0x0075_7365_7273).chance(USERS_PERCENT)
}

/// The change of users that comes after so many. All later ones leave what it says as it is, until the same guest is removed.
fn change(made: usize) -> UserChange {
    let add = |name: &str| UserChange::Add { name: name.to_owned(), password: None, token: None };
    let all = |name: &str| UserChange::Grant(name.to_owned(), Right::Over(Access::Admin, "".into()));
    let Some(of_guests) = made.checked_sub(6) else {
        return match made {
            0 => add(OPERATOR),
            1 => UserChange::Grant(OPERATOR.to_owned(), Right::Cluster),
            2 => all(OPERATOR),
            3 => add(REGULAR),
            4 => all(REGULAR),
            _ => UserChange::Enforce(true),
        };
    };
    let guest = format!("guest{}", of_guests / 3);
    match of_guests % 3 {
        0 => add(&guest),
        1 => all(&guest),
        _ => UserChange::Remove(guest),
    }
}

/// Whether these users are not to do anything for somebody, and never will be again.
fn are_without(users: &Users, who: Principal) -> bool {
    let is_gone = who < users.next() && users.get(who).is_none();
    users.enforced && (who == Principal::NOBODY || is_gone)
}

impl World {
    /// The next change of users is made, again and again until some node goes by it.
    pub(crate) fn change_users(&mut self) {
        if self.is_calm {
            return;
        }
        let wanted = change(self.rights.made);
        if let Some(users) = self.layout.as_ref().map(|layout| layout.users.clone())
            && users.after(&wanted) == Ok(None)
        {
            self.rights.made += 1;
            let number = |name: &str| users.named(name).map(|user| user.id);
            match &wanted {
                UserChange::Grant(name, Right::Over(..)) => match name.as_str() {
                    OPERATOR => self.rights.operator = number(name),
                    REGULAR => self.rights.regular = number(name),
                    _ => self.rights.guest = number(name),
                },
                UserChange::Remove(_) => self.log(format_args!("{wanted:?} is heard of")),
                _ => {}
            }
        } else {
            self.want_of_one(LayoutChange::Users(wanted));
        }
        let is_leaving = matches!(change(self.rights.made), UserChange::Remove(_));
        let after_us = self.random.between(STEP_US / 6, if is_leaving { STAY_US } else { STEP_US });
        self.schedule(after_us, Next::ChangeUsers);
    }

    /// Who makes a call.
    pub(crate) fn draw_who(&mut self, by: Asker, request: &Request) -> Principal {
        if !has_users(self.plan.seed) {
            return Principal::NOBODY;
        }
        let Rights { operator, regular, guest, .. } = self.rights;
        let is_operators = matches!(by, Asker::Onlooker | Asker::Judge) || request.changes_cluster();
        let steady = if is_operators { operator } else { regular };
        match (by, self.random.below(100)) {
            (Asker::Client(_) | Asker::Copy, 0..GUESTS_PERCENT) if !is_operators && guest.is_some() => {
                guest.expect("just looked at")
            }
            (Asker::Client(_), SOMEBODY_PERCENT..) if !is_operators => Principal::NOBODY,
            _ => steady.unwrap_or_default(),
        }
    }

    /// The hosts whose processes know that there is nothing to be done for somebody, each with its life.
    pub(crate) fn hosts_without(&self, who: Principal) -> Vec<(usize, u64)> {
        if !has_users(self.plan.seed) || [self.rights.operator, self.rights.regular].contains(&Some(who)) {
            return Vec::new();
        }
        let knows = |host: &usize| {
            let layout = self.hosts[*host].process.as_ref().and_then(|process| process.node.layout());
            layout.is_some_and(|layout| are_without(&layout.users, who))
        };
        (0..self.hosts.len()).filter(knows).map(|host| (host, self.hosts[host].life)).collect()
    }

    /// A node has answered a call of this user's, which is no repetition if `is_first`; these hosts knew that they are gone when it was made.
    pub(crate) fn judge_rights(
        &mut self,
        (id, host, who): (u64, usize, Principal),
        is_first: bool,
        gone: &[(usize, u64)],
        reply: &Reply,
    ) {
        if !has_users(self.plan.seed) {
            return;
        }
        if let Reply::Failed(failure) = reply {
            let is_steady = [self.rights.operator, self.rights.regular].contains(&Some(who));
            if is_steady && matches!(failure.code, Code::Unauthenticated | Code::PermissionDenied) {
                let what = format_args!("n{} refuses #{id} of {who:?}: {failure}", host + 1);
                self.find(RIGHTS_ARE_KEPT, what);
            }
            return;
        }
        let led = match reply {
            Reply::Written(Receipt { shard, term, .. }) if is_first => self.judges.leader_in(*shard, *term),
            _ => None,
        };
        for judge in [Some(host), led].into_iter().flatten() {
            let life = self.hosts[judge].life;
            if gone.contains(&(judge, life)) {
                let what =
                    format_args!("n{} does #{id} for {who:?}, and knew that they may nothing", judge + 1);
                self.find(RIGHTS_ARE_KEPT, what);
            }
        }
    }
}
