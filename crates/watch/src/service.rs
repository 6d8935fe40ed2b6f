//! The records of a service (RFC 2782) as backends: who is asked first, and with which share.
//!
//! Lower priorities come first: they become levels from zero on, whatever their numbers. The weight of a record is that
//! of its target, which shares it among its addresses. Zero is "a very small chance" beside others: a hundredth of what
//! weight one has.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use goodgate_upstream::{Address, BackendSpec, FoundAddress};

/// One record, with the addresses of its target.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The shares beyond which no common multiple is looked for: they are rounded then.
const MULTIPLE_MAX: u64 = 1 << 20;

/// All addresses of a service, each once, at the first level that has it.
pub(crate) fn arrange(offers: &[Offer]) -> Vec<FoundAddress> {
    let good = |offer: &&Offer| offer.port > 0 && !offer.addresses.is_empty();
    let mut priorities: Vec<u16> = offers.iter().filter(good).map(|offer| offer.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (level, priority) in (0_u16..).zip(priorities) {
        let peers: Vec<&Offer> =
            offers.iter().filter(good).filter(|offer| offer.priority == priority).collect();
        for (offer, weight) in peers.iter().zip(weights(&peers)) {
            let sockets = offer.addresses.iter().map(|ip| SocketAddr::new(*ip, offer.port));
            let new = sockets.filter(|socket| seen.insert(*socket)).map(Address::Ip);
            found.extend(new.map(|address| FoundAddress { address, level, weight: Some(weight) }));
        }
    }
    found
}

/// The weight of each address of each of these offers, which share one level.
fn weights(offers: &[&Offer]) -> Vec<NonZeroU16> {
    let addresses = |offer: &Offer| offer.addresses.len() as u64;
    let multiple = offers.iter().fold(1, |multiple, offer| lcm(multiple, addresses(offer)).min(MULTIPLE_MAX));
    let share = |offer: &&Offer| {
        let weight = if offer.weight == 0 { 1 } else { u64::from(offer.weight) * 100 };
        (weight * multiple / addresses(offer)).max(1)
    };
    let shares: Vec<u64> = offers.iter().map(share).collect();
    let divisor = shares.iter().fold(0, |divisor, share| gcd(divisor, *share)).max(1);
    let largest = shares.iter().map(|share| share / divisor).max().unwrap_or(1);
    let most = u64::from(BackendSpec::WEIGHT_MAX);
    let fitting = |share: &u64| {
        let share = share / divisor;
        let share = if largest > most { share * most / largest } else { share };
        u16::try_from(share).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN)
    };
    shares.iter().map(fitting).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn lcm(a: u64, b: u64) -> u64 {
    a / gcd(a, b).max(1) * b
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of (priority, weight), each with so many addresses.
    fn arranged(records: &[(u16, u16, u8)]) -> Vec<(u16, u16)> {
        let offer = |(at, (priority, weight, addresses)): (usize, &(u16, u16, u8))| Offer {
            priority: *priority,
            weight: *weight,
            port: 1 + u16::try_from(at).unwrap(),
            addresses: (0..*addresses).map(|host| IpAddr::from([127, 0, 0, host])).collect(),
        };
        let offers: Vec<_> = records.iter().enumerate().map(offer).collect();
        arrange(&offers).iter().map(|found| (found.level, found.weight.unwrap().get())).collect()
    }

    #[test]
    fn priorities_become_levels_from_zero_on() {
        let records = [(20, 1, 1), (10, 1, 1), (65_535, 1, 1), (10, 1, 1)];
        assert_eq!(arranged(&records), [(0, 1), (0, 1), (1, 1), (2, 1)]);
    }

    #[test]
    fn weights_keep_their_proportion_within_what_a_backend_may_have() {
        assert_eq!(arranged(&[(1, 10, 1), (1, 30, 1)]), [(0, 1), (0, 3)]);
        assert_eq!(arranged(&[(1, 65_535, 1), (1, 1, 1)]), [(0, 1000), (0, 1)], "the least is not nothing");
        assert_eq!(arranged(&[(1, 7, 1), (2, 9, 1)]), [(0, 1), (1, 1)], "each level by itself");
    }

    #[test]
    fn zero_is_a_very_small_chance_beside_others_and_an_equal_one_among_zeros() {
        assert_eq!(arranged(&[(1, 0, 1), (1, 1, 1)]), [(0, 1), (0, 100)]);
        assert_eq!(arranged(&[(1, 0, 1), (1, 0, 1)]), [(0, 1), (0, 1)]);
    }

    #[test]
    fn the_addresses_of_a_target_share_its_weight() {
        assert_eq!(arranged(&[(1, 1, 2), (1, 1, 1)]), [(0, 1), (0, 1), (0, 2)]);
        assert_eq!(arranged(&[(1, 1, 2), (1, 1, 3)]), [(0, 3), (0, 3), (0, 2), (0, 2), (0, 2)]);
        let many: Vec<_> = (1..=200).map(|addresses| (1, 65_535, addresses)).collect();
        assert!(arranged(&many).iter().all(|(_, weight)| (1..=1000).contains(weight)));
    }

    #[test]
    fn what_cannot_be_connected_to_is_left_out_and_an_address_counts_once() {
        let at = |priority, port| Offer { priority, weight: 1, port, addresses: vec![[127, 0, 0, 1].into()] };
        let nowhere = Offer { addresses: Vec::new(), ..at(0, 80) };
        let found = arrange(&[nowhere, at(1, 0), at(3, 80), at(2, 80), at(3, 81)]);
        let shown: Vec<_> = found.iter().map(|found| (found.address.to_string(), found.level)).collect();
        assert_eq!(shown, [("127.0.0.1:80".to_owned(), 0), ("127.0.0.1:81".to_owned(), 1)]);
        assert!(arrange(&[]).is_empty());
    }
}
