//! Whether a node is there, as another one sees it.

/// Whether a node is connected and has reported lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is not, or has not for some time.
    #[default]
    Down,
    /// It has.
    Up,
    /// The asked node serves only since a moment ago, and has not heard of it yet.
    Unknown,
}

impl Presence {
    /// As people are told it.
    pub fn name(self) -> &'static str {
        match self {
            Presence::Down => "down",
            Presence::Up => "up",
            Presence::Unknown => "unknown",
        }
    }
}
