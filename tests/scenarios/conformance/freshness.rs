//! How long a response is fresh, and how old it is (RFC 9111 section 4.2).

use super::case::{Case, case, not_reused, reused};

pub(super) fn cases() -> Vec<Case> {
    [lifetimes(), expires(), dates(), ages(), guesses()].into_iter().flatten().collect()
}

fn lifetimes() -> Vec<Case> {
    let first = "9111 4.2.1";
    vec![
        reused(first, "max-age counts", "Cache-Control: max-age=60"),
        not_reused(first, "max-age=0 is never fresh", "Cache-Control: max-age=0"),
        reused(
            first,
            "max-age wins over an Expires that has passed",
            "Cache-Control: max-age=60|Expires: @-60",
        ),
        not_reused(first, "max-age=0 wins over an Expires to come", "Cache-Control: max-age=0|Expires: @+60"),
        reused(first, "s-maxage wins over a shorter max-age", "Cache-Control: s-maxage=60, max-age=1|Age: 5"),
        not_reused(
            first,
            "s-maxage wins over a longer max-age",
            "Cache-Control: s-maxage=1, max-age=60|Age: 5",
        ),
        reused(first, "s-maxage wins in any order", "Cache-Control: max-age=1, s-maxage=60|Age: 5"),
        not_reused(first, "s-maxage=0 wins over max-age", "Cache-Control: max-age=60, s-maxage=0"),
        reused(first, "s-maxage wins over Expires", "Cache-Control: s-maxage=60|Expires: @-60"),
        not_reused(first, "s-maxage=0 wins over Expires", "Cache-Control: s-maxage=0|Expires: @+60"),
        reused(
            "9111 4.2.1",
            "directives of several lines count together",
            "Cache-Control: public|Cache-Control: max-age=60",
        ),
        not_reused(
            "9111 4.2",
            "a response as old as its lifetime is stale",
            "Cache-Control: max-age=60|Age: 61",
        ),
        reused(
            "9111 4.2",
            "a response younger than its lifetime is fresh",
            "Cache-Control: max-age=60|Age: 30",
        ),
        reused("9111 1.2.2", "2147483647 seconds are a lifetime", "Cache-Control: max-age=2147483647"),
        reused("9111 1.2.2", "2147483648 seconds are a lifetime", "Cache-Control: max-age=2147483648"),
        reused(
            "9111 1.2.2",
            "more than 32 bits of seconds are a long time",
            "Cache-Control: max-age=4294967297",
        ),
        reused(
            "9111 1.2.2",
            "more than 64 bits of seconds are a long time",
            "Cache-Control: max-age=99999999999999999999999",
        ),
    ]
}

fn expires() -> Vec<Case> {
    let at = "9111 5.3";
    vec![
        reused(at, "Expires to come", "Expires: @+60|Date: @-0"),
        not_reused(at, "Expires that has passed", "Expires: @-60|Date: @-0"),
        not_reused(at, "Expires is the Date itself", "Expires: @-0|Date: @-0"),
        not_reused(at, "Expires: 0 is in the past", "Expires: 0"),
        not_reused(at, "Expires: -1 is in the past", "Expires: -1"),
        not_reused(at, "an empty Expires is in the past", "Expires:"),
        not_reused(at, "words are no date", "Expires: tomorrow"),
        not_reused(
            "9111 4.2.1",
            "of two Expires the first, if the other is earlier it is stale",
            "Expires: @+60|Expires: @-60",
        ),
        not_reused(at, "an Expires that has come by its own Date is stale", "Expires: @+60|Date: @+60"),
        not_reused("9111 4.2.3", "Age is taken off an Expires", "Expires: @+60|Date: @-0|Age: 90"),
        reused(
            "9111 4.2.1",
            "Expires counts from Date, if that is ahead of us",
            "Expires: @+4000|Date: @+3600",
        ),
        not_reused("9111 4.2.3", "Date tells the age of what expires", "Expires: @-10|Date: @-3600"),
        reused(at, "an Expires far away", "Expires: Fri, 31 Dec 9999 23:59:59 GMT"),
    ]
}

fn dates() -> Vec<Case> {
    let at = "9110 5.6.7";
    let any = "9111 4.2";
    vec![
        reused(at, "the preferred form of a date", "Expires: Wed, 01 Jan 2070 00:00:00 GMT"),
        reused(at, "the asctime form of a date", "Expires: Wed Jan  1 00:00:00 2070"),
        reused(at, "the RFC 850 form of a date", "Expires: Friday, 01-Jan-60 00:00:00 GMT"),
        not_reused(
            at,
            "a two-digit year more than 50 years ahead is past",
            "Expires: Saturday, 01-Jan-94 00:00:00 GMT",
        ),
        reused(any, "the case of the weekday does not count", "Expires: wED, 01 Jan 2070 00:00:00 GMT"),
        reused(any, "the case of the month does not count", "Expires: Wed, 01 jAN 2070 00:00:00 GMT"),
        reused(any, "the case of the zone does not count", "Expires: Wed, 01 Jan 2070 00:00:00 gMT"),
        not_reused(any, "another zone than GMT is invalid", "Expires: Wed, 01 Jan 2070 00:00:00 AEST"),
        not_reused(any, "even UTC", "Expires: Wed, 01 Jan 2070 00:00:00 UTC"),
        not_reused(any, "a numeric zone is invalid", "Expires: Wed, 01 Jan 2070 00:00:00 +0000"),
        not_reused(at, "a date without its comma is invalid", "Expires: Wed 01 Jan 2070 00:00:00 GMT"),
        not_reused(at, "a date with several spaces is invalid", "Expires: Wed, 01  Jan 2070 00:00:00 GMT"),
        not_reused(at, "a date with dashes is invalid", "Expires: Wed, 01-Jan-2070 00:00:00 GMT"),
        not_reused(at, "a time with periods is invalid", "Expires: Wed, 01 Jan 2070 00.00.00 GMT"),
        not_reused(at, "an hour of one digit is invalid", "Expires: Wed, 01 Jan 2070 0:00:00 GMT"),
        not_reused(at, "a day of one digit is invalid", "Expires: Wed, 1 Jan 2070 00:00:00 GMT"),
        not_reused(
            at,
            "a two-digit year in the preferred form is invalid",
            "Expires: Wed, 01 Jan 70 00:00:00 GMT",
        ),
        not_reused(at, "a 32nd day is invalid", "Expires: Wed, 32 Jan 2070 00:00:00 GMT"),
        not_reused(at, "a 25th hour is invalid", "Expires: Wed, 01 Jan 2070 25:00:00 GMT"),
        not_reused(at, "a date in quotes is invalid", "Expires: \"Wed, 01 Jan 2070 00:00:00 GMT\""),
        not_reused(at, "an ISO date is invalid", "Expires: 2070-01-01T00:00:00Z"),
        not_reused(at, "something behind the date is invalid", "Expires: Wed, 01 Jan 2070 00:00:00 GMT, x"),
        not_reused(at, "seconds since 1970 are no date", "Expires: 3155760000"),
    ]
}

fn ages() -> Vec<Case> {
    let at = "9111 5.1";
    let with = |age: &str| format!("Cache-Control: max-age=60|{age}");
    vec![
        not_reused("9111 4.2.3", "the Age of a response counts", &with("Age: 90")),
        not_reused("9111 4.2.3", "Date tells how old a response is", &with("Date: @-3600")),
        reused("9111 4.2.3", "a Date in the future makes nothing younger or older", &with("Date: @+3600")),
        not_reused("9111 4.2.3", "the greater of Age and the age by Date counts", &with("Date: @-0|Age: 90")),
        not_reused(
            "9111 4.2.3",
            "the greater of the age by Date and Age counts",
            &with("Date: @-3600|Age: 1"),
        ),
        reused(at, "Age: 0", &with("Age: 0")),
        not_reused(at, "of a list in Age the first counts", &with("Age: 90, 0")),
        reused(at, "and the others do not", &with("Age: 0, 90")),
        not_reused(at, "of several Age lines the first counts", &with("Age: 90|Age: 0")),
        reused(at, "and the others do not, either", &with("Age: 0|Age: 90")),
        reused(at, "an Age that is a word is ignored", &with("Age: abc")),
        reused(at, "a negative Age is ignored", &with("Age: -90")),
        reused(at, "an Age with a fraction is ignored", &with("Age: 90.0")),
        reused(at, "an Age with a sign is ignored", &with("Age: +90")),
        reused(at, "an Age in quotes is ignored", &with("Age: \"90\"")),
        reused(at, "an Age with something behind it is ignored", &with("Age: 90x")),
        reused(at, "an empty Age is ignored", &with("Age:")),
        not_reused(at, "a huge Age is a great age", &with("Age: 99999999999999999999")),
        not_reused(at, "an Age of more than 31 bits is a great age", &with("Age: 2147483649")),
        case(at, "a stored response has an Age")
            .get()
            .answered("Cache-Control: max-age=60")
            .get()
            .hit()
            .aged(0, 5),
        case("9111 4.2.3", "the Age that is told goes on from the one that came")
            .get()
            .answered("Cache-Control: max-age=600|Age: 100")
            .get()
            .hit()
            .aged(100, 105),
        case("9111 4.2.3", "the Age that is told counts the way by Date")
            .get()
            .answered("Cache-Control: max-age=6000|Date: @-1000")
            .get()
            .hit()
            .aged(1000, 1005),
        case("9111 5.1", "there is one Age, whatever came")
            .get()
            .answered("Cache-Control: max-age=6000|Age: 10|Age: 20")
            .get()
            .hit()
            .aged(10, 15),
    ]
}

fn guesses() -> Vec<Case> {
    let at = "9111 4.2.2";
    let guess =
        |claim: &'static str, fields: &str| case(at, claim).on("guessing").get().answered(fields).get();
    vec![
        guess("a tenth of the time since the last change may be guessed", "Last-Modified: @-864000").hit(),
        guess("without Last-Modified nothing is guessed", "X-A: 1").asked(),
        guess("a Last-Modified in the future allows no guess", "Last-Modified: @+864000").asked(),
        guess("a Last-Modified that is no date allows no guess", "Last-Modified: long ago").asked(),
        guess("what is explicit is not guessed: max-age", "Last-Modified: @-864000|Cache-Control: max-age=0")
            .asked(),
        guess("what is explicit is not guessed: Expires", "Last-Modified: @-864000|Expires: 0").asked(),
        guess("a guess is used up by Age", "Last-Modified: @-1000|Age: 200").asked(),
        guess("no-store is not guessed about", "Last-Modified: @-864000|Cache-Control: no-store").asked(),
        guess("no-cache is asked about all the same", "Last-Modified: @-864000|Cache-Control: no-cache")
            .asked(),
        case(at, "public permits a guess for any status")
            .on("guessing")
            .get()
            .answered_by(599, "Last-Modified: @-864000|Cache-Control: public")
            .get()
            .hit(),
        case(at, "without permission of the route nothing is guessed")
            .get()
            .answered("Last-Modified: @-864000")
            .get()
            .asked(),
    ]
}
