//! The Pingora adapter: one request's story, from the accepted connection to its access record.
//!
//! `connection` reads and checks the head, `gateway` is the only implementation of Pingora's trait and
//! calls the rooms: `begin` (who, which route), `copies` (the cache), `exchange` (attempts, retries, giving
//! up), `finish` (counters, record). Pingora's words stay in here.

mod admission;
mod answer;
mod attempt;
mod begin;
mod chunks;
mod classify;
mod client_address;
mod connection;
mod connection_auth;
mod context;
mod copies;
mod effective_request;
mod exchange;
mod finish;
mod forward;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
mod gateway;
mod grant;
mod head;
mod hops;
mod http2;
mod hygiene;
mod interim;
mod kept;
mod kept_date;
mod lane;
mod listener;
mod mirror;
mod negotiated;
mod override_method;
mod own;
mod pace;
mod page;
mod peer;
mod places;
mod proxy_header;
mod queue;
mod refusal;
mod replay;
mod request_id;
mod route;
mod route_state;
mod rules;
mod snapshot;
mod socket;
mod split;
mod stores;
mod stream;
mod target_escape;
mod ties;
mod tls;
mod trace;
mod variables;
mod verdict;
mod watchdog;

pub use connection::{Door, Proxy};
pub use kept::RETIRE_EVERY;
pub use snapshot::{Live, Snapshot};
