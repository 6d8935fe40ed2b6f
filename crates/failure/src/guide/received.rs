//! The backend itself answered with an error: it is there, and its own log knows more.

use super::{Chapter, Guide};
use crate::ReceivedStatus;

pub(super) const fn guide(status: ReceivedStatus) -> &'static Guide {
    match status {
        ReceivedStatus::S500 => &RECEIVED_500,
        ReceivedStatus::S502 => &RECEIVED_502,
        ReceivedStatus::S503 => &RECEIVED_503,
        ReceivedStatus::S504 => &RECEIVED_504,
        ReceivedStatus::S429 => &RECEIVED_429,
        ReceivedStatus::S403 => &RECEIVED_403,
        ReceivedStatus::S404 => &RECEIVED_404,
    }
}

const RECEIVED_500: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The application behind answered 500: it failed while it worked on the request.",
    seen: "`goodgate_responses_total{status=\"500\",origin=\"backend\"}` when it is passed on; \
        `goodgate_attempt_failures_total{cause=\"received_500\"}` where a list of failures names it.",
    usual: "An error in the application, often since a release; a database or a file that it needs is \
        missing.",
    advice: "Look into the application's log: the record has the backend, the time and the request id, which \
        the backend was sent as `X-Request-Id`.",
    setting: "By default it is passed on as it is. `http_500` in `retry.on` and `cache.use_stale` hides it \
        where that is safe; in `fail_on` it takes a backend out.",
    nginx: &[],
    is_raised: true,
};

const RECEIVED_502: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The backend is a proxy itself, and what stands behind it gave no good answer.",
    seen: "`goodgate_responses_total{status=\"502\",origin=\"backend\"}` when it is passed on; \
        `goodgate_attempt_failures_total{cause=\"received_502\"}` for every attempt.",
    usual: "The application server behind a backend's nginx, Apache or sidecar has crashed or is restarting.",
    advice: "Look into the error log of the proxy on the backend: the reason is one step further behind.",
    setting: "`retry.on` and `cache.use_stale` name `http_502` by default; `fail_on` does not.",
    nginx: &[],
    is_raised: true,
};

const RECEIVED_503: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The backend answered that it does not serve at present.",
    seen: "`goodgate_responses_total{status=\"503\",origin=\"backend\"}` when it is passed on; \
        `goodgate_attempt_failures_total{cause=\"received_503\"}` for every attempt.",
    usual: "Maintenance mode, a start that is not finished, all workers busy, or a mesh's sidecar without an \
        application.",
    advice: "See whether one backend says so or all do: one is starting or overloaded, all of them point to \
        maintenance or to something that they share.",
    setting: "`retry.on` and `cache.use_stale` name `http_503` by default; `health_check` keeps a backend \
        out while it starts.",
    nginx: &[],
    is_raised: true,
};

const RECEIVED_504: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The backend is a proxy itself, and what stands behind it did not answer in time.",
    seen: "`goodgate_responses_total{status=\"504\",origin=\"backend\"}` when it is passed on; \
        `goodgate_attempt_failures_total{cause=\"received_504\"}` where a list of failures names it.",
    usual: "A slow application behind a backend's own proxy, whose time limit is shorter than the gateway's.",
    advice: "See which path it is and measure it at the application; the proxy's log on the backend has the \
        time it waited.",
    setting: "`cache.use_stale` names `http_504` by default; `retry.on` does not, since a slow page is slow \
        elsewhere too.",
    nginx: &[],
    is_raised: true,
};

const RECEIVED_429: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The backend answered that this client asks too often.",
    seen: "`goodgate_responses_total{status=\"429\",origin=\"backend\"}`; \
        `goodgate_attempt_failures_total{cause=\"received_429\"}` where a list of failures names it.",
    usual: "A limit of the application; often it counts the gateway's address and so takes all clients for \
        one.",
    advice: "See whom the backend counts: it must take the client's address from `X-Forwarded-For`, and \
        trust the gateway's address for that.",
    setting: "By default it is passed on. With `http_429` in `retry.on` the limit is asked again elsewhere, \
        which seldom helps.",
    nginx: &[],
    is_raised: true,
};

const RECEIVED_403: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The backend answered that this is forbidden.",
    seen: "`goodgate_responses_total{status=\"403\",origin=\"backend\"}`; \
        `goodgate_attempt_failures_total{cause=\"received_403\"}` where a list of failures names it.",
    usual: "A request that really is not allowed; otherwise a backend that does not know the `Host` it is \
        sent, allows only certain addresses, or lost the right to read its files.",
    advice: "If all clients get it, ask the backend with the same `Host` from the gateway's machine (`curl \
        -v -H 'Host: NAME' http://ADDRESS:PORT/PATH`).",
    setting: "`host` of the upstream. By default a 403 is passed on and is no failure.",
    nginx: &[],
    is_raised: true,
};

const RECEIVED_404: Guide = Guide {
    chapter: Chapter::Received,
    meaning: "The backend answered that there is no such page.",
    seen: "`goodgate_responses_total{status=\"404\",origin=\"backend\"}`; \
        `goodgate_attempt_failures_total{cause=\"received_404\"}` where a list of failures names it.",
    usual: "A page that is not there. If it is on one backend only: a release that has not reached all of \
        them.",
    advice: "Compare the backends by the records: if only some answer 404 for the same path, finish the \
        release there.",
    setting: "`host` of the upstream, and `routes[].match.path`: it does not cut anything off the path. By \
        default a 404 is passed on and is no failure.",
    nginx: &[],
    is_raised: true,
};
