//! How many requests a route takes, and from whom they are counted.

use goodgate_failure::Networks;
use std::fmt;
use std::num::NonZeroU32;

use http::HeaderName;

/// The highest rate and burst: beyond it nothing is limited in effect.
const COUNT_MAX: u32 = 1_000_000;

/// One limit of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Whose requests are counted together.
    pub per: Per,
    /// How many of them in the long run.
    pub rate: Rate,
    /// How many at once, after a pause.
    pub burst: NonZeroU32,
    /// Clients that are not counted.
    pub exempt: Networks,
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Per {
    /// Those of one address; of IPv6 those of one /64 network.
    ClientIp,
    /// All of the route.
    Route,
    /// Those with the same value of this field; those without it by address.
    Header(HeaderName),
}

/// Requests in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at most a million.
    pub count: NonZeroU32,
    /// In which time.
    pub period: Period,
}

/// The time that a rate is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl Period {
    /// How long it is.
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

impl Rate {
    /// Reads `100/s`, `5/m`, `10/h`. The error says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let (count, unit) = text.split_once('/')?;
            let period = match unit {
                "s" => Period::Second,
                "m" => Period::Minute,
                "h" => Period::Hour,
                _ => return None,
            };
            let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
            let count = count.parse().ok().filter(|count: &u32| is_number && *count <= COUNT_MAX)?;
            Some(Self { count: NonZeroU32::new(count)?, period })
        };
        read().ok_or_else(|| format!("1 to {COUNT_MAX} requests in a time, like `100/s`, `30/m` or `10/h`"))
    }

    /// What comes in a second, at least one.
    pub(crate) fn of_a_second(self) -> NonZeroU32 {
        NonZeroU32::new(self.count.get() / self.period.seconds()).unwrap_or(NonZeroU32::MIN)
    }

    /// What `burst` may be.
    pub(crate) const fn burst_range() -> std::ops::RangeInclusive<u32> {
        1..=COUNT_MAX
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.period {
            Period::Second => 's',
            Period::Minute => 'm',
            Period::Hour => 'h',
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl Per {
    /// Reads `client_ip`, `route` and `header:NAME`. The error says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let header = |text: &str| {
            let name = text.strip_prefix("header:").filter(|name| !crate::foreign::has_pattern(name))?;
            HeaderName::from_bytes(name.as_bytes()).ok()
        };
        match text {
            "client_ip" => Ok(Self::ClientIp),
            "route" => Ok(Self::Route),
            _ => header(text).map(Self::Header).ok_or_else(|| "client_ip, route, header:NAME".to_owned()),
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client_ip"),
            Self::Route => f.write_str("route"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_counts_in_a_time() {
        for (text, burst) in
            [("1/s", 1), ("100/s", 100), ("30/m", 1), ("600/m", 10), ("1/h", 1), ("1000000/h", 277)]
        {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.to_string().as_str(), rate.of_a_second().get()), (text, burst));
        }
        for text in
            ["", "/s", "100", "0/s", "+1/s", "-1/s", "1.5/s", "1/d", "1 /s", "1/S", "1/s/s", "1000001/s"]
        {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whose_requests_are_counted_is_one_of_three() {
        for text in ["client_ip", "route", "header:x-api-key"] {
            assert_eq!(Per::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "ip", "header", "header:", "header:a b"] {
            assert!(Per::parse(text).is_err(), "{text}");
        }
    }
}
