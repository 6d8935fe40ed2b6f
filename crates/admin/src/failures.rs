//! The list of the last failures and rescues, as the access log has them.

use goodgate_failure::Cause;
use goodgate_telemetry::{AccessRecord, KeptRecord, Ring};

use crate::query::Query;

/// Records in one answer.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// What its address may be asked for.
pub(crate) const PARAMETERS: [&str; 5] = ["upstream", "cause", "route", "request_id", "limit"];

/// Which records are wanted.
#[derive(Debug)]
pub(crate) struct Filter<'a> {
    upstream: Option<&'a str>,
    cause: Option<Cause>,
    route: Option<&'a str>,
    request_id: Option<&'a str>,
    limit: usize,
}

impl<'a> Filter<'a> {
    /// From the parameters of an address. The error is a sentence for the one who asked.
    pub(crate) fn of(query: &'a Query) -> Result<Self, String> {
        Ok(Self {
            upstream: query.value("upstream"),
            cause: query.value("cause").map(cause).transpose()?,
            route: query.value("route"),
            request_id: query.request_id()?,
            limit: query.value("limit").map_or(Ok(LIMIT_DEFAULT), limit)?,
        })
    }

    /// The records that fit, the newest first.
    pub(crate) fn apply(&self, ring: &Ring) -> Vec<KeptRecord> {
        let mut records = ring.newest_first(self.upstream);
        records.retain(|record| self.fits(record));
        records.truncate(self.limit);
        records
    }

    fn fits(&self, record: &AccessRecord<'_>) -> bool {
        self.cause.is_none_or(|cause| record.causes().contains(&cause))
            && self.route.is_none_or(|route| record.route == route)
            && self.request_id.is_none_or(|id| record.request_id == id)
    }
}

fn cause(name: &str) -> Result<Cause, String> {
    Cause::ALL.into_iter().find(|cause| cause.name() == name).ok_or_else(|| {
        let names: Vec<&str> = Cause::ALL.iter().map(|cause| cause.name()).collect();
        format!("cause is one of {}", names.join(", "))
    })
}

fn limit(text: &str) -> Result<usize, String> {
    let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| format!("limit is a number from 1 to {LIMIT_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let query = Query::read(Some(text), &PARAMETERS).unwrap();
        Filter::of(&query).map(|filter| filter.limit).unwrap_err()
    }

    #[test]
    fn what_does_not_exist_is_answered_with_what_does() {
        assert!(error("cause=boredom").starts_with("cause is one of dns_timeout, dns_error, "));
        for wrong in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=99999999999999999999999"] {
            assert_eq!(error(wrong), "limit is a number from 1 to 1000");
        }
    }

    #[test]
    fn what_is_absent_or_empty_filters_nothing() {
        let query = Query::read(Some("upstream=&cause=&route=&request_id=&limit="), &PARAMETERS).unwrap();
        let filter = Filter::of(&query).unwrap();
        assert_eq!((filter.upstream, filter.cause, filter.route), (None, None, None));
        assert_eq!((filter.request_id, filter.limit), (None, LIMIT_DEFAULT));
    }
}
