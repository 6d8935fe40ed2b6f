//! Who may use a route, by address.

use std::net::IpAddr;

use goodgate_failure::Networks;

/// Networks that are let in or kept out. Without any, everyone is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Who is let in; empty: everyone.
    pub allow: Networks,
    /// Who is kept out, even if let in by `allow`.
    pub deny: Networks,
}

impl Access {
    /// Whether a client at this address is let in. A client whose address is unknown (`None`) may be any that
    /// `deny` names and need not be one that `allow` names: only a route without lists admits it.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let Some(client) = client else {
            return self.allow.is_empty() && self.deny.is_empty();
        };
        !self.deny.contains(client) && (self.allow.is_empty() || self.allow.contains(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_wins_and_no_allow_is_everyone() {
        let networks = |list: &[&str]| {
            list.iter().map(|text| text.parse::<ipnet::IpNet>().unwrap()).collect::<Networks>()
        };
        for (allow, deny, client, admitted) in [
            (&[][..], &[][..], "1.2.3.4", true),
            (&["10.0.0.0/8"], &[], "10.1.2.3", true),
            (&["10.0.0.0/8"], &[], "11.1.2.3", false),
            (&["10.0.0.0/8"], &[], "::1", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false),
            (&["10.0.0.0/8"], &["10.1.0.0/16"], "10.2.2.3", true),
            (&[], &["2001:db8::/32"], "2001:db8::1", false),
            (&[], &["2001:db8::/32"], "2001:db9::1", true),
            (&["0.0.0.0/0", "::/0"], &[], "::1", true),
        ] {
            let access = Access { allow: networks(allow), deny: networks(deny) };
            assert_eq!(access.admits(None), allow.is_empty() && deny.is_empty(), "{allow:?} {deny:?}");
            assert_eq!(
                access.admits(Some(client.parse().unwrap())),
                admitted,
                "{client}: {allow:?} {deny:?}"
            );
        }
    }
}
