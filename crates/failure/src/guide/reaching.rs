//! No backend could be reached: nothing of the request was sent.

use super::{Chapter, Guide};

pub(super) const DNS_TIMEOUT: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The name servers did not answer when a backend's name was looked up, and no address of it is \
        known: the last ones are used on while lookups fail, but not longer than `dns.keep`.",
    seen: "`goodgate_dns_lookups_total{result=\"dns_timeout\"}` grows; `goodgate_dns_stale` is 1 while last \
        addresses are used on; `goodgate_gateway_errors_total{cause=\"dns_timeout\"}` only if there are \
        none. The access record has no attempts.",
    usual: "The name server is down or overloaded, or port 53 is blocked between it and the gateway.",
    advice: "Ask the name server from the gateway's machine (`dig @SERVER NAME`), and name a second one in \
        `server.resolver`.",
    setting: "`server.resolver`: absent, the servers of `/etc/resolv.conf` are asked. `dns.keep` is for how long last \
        addresses are used on.",
    nginx: &["could not be resolved (110: Operation timed out)"],
    is_raised: true,
};

pub(super) const DNS_ERROR: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "A backend's name has no address according to the name servers, and none is known: the last \
        ones are used on while lookups fail, but not longer than `dns.keep`.",
    seen: "`goodgate_dns_lookups_total{result=\"dns_error\"}` grows; `goodgate_dns_stale` is 1 while last \
        addresses are used on; `goodgate_gateway_errors_total{cause=\"dns_error\"}` only if there are none. \
        The access record has no attempts.",
    usual: "A typing error in the name, a service that is not created yet or was renamed, or a name server \
        that does not know the zone.",
    advice: "Look the name up on the gateway's machine (`getent hosts NAME`) and compare it with `backends`, \
        letter by letter. `/api/v1/names` says which name it is.",
    setting: "`backends` has the name; `server.resolver` or `dns.resolver` says who is asked, `dns.keep` for how \
        long last addresses are used on.",
    nginx: &["host not found in upstream", "could not be resolved (3: Host not found)"],
    is_raised: true,
};

pub(super) const DESTINATION_UNAVAILABLE: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "No backend was in rotation, or none was left to ask. Seen above all as the cause of rescues: \
        while all backends are out, copies are served for this cause.",
    seen: "`goodgate_upstream_backends_in_rotation` is 0, and `goodgate_backend_state` has what each backend \
        is instead of `up`. `goodgate_rescues_total{by=\"stale\",cause=\"destination_unavailable\"}` counts \
        the copies that were served. The log says `the upstream has no backend in rotation`.",
    usual: "All backends failed one after the other, and the records before have the causes; a release took \
        all of them down at once; a health check asks for a page that is not there.",
    advice: "See `cause` of each backend in `/api/v1/backends` and follow the commonest one: this cause only \
        says that nobody is left.",
    setting: "`max_fails`, `fail_timeout` and `health_check` decide who is out and for how long; a backend \
        with `backup` stands in when all others are.",
    nginx: &["no live upstreams while connecting to upstream"],
    is_raised: true,
};

pub(super) const DESTINATION_IP_UNROUTABLE: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The network has no way to the backend's address: no route, or a host on the way says so.",
    seen: "`goodgate_attempt_failures_total{cause=\"destination_ip_unroutable\"}`; in the access record an \
        attempt with `phase` `connect`. `goodgate_ejections_total` follows when it repeats.",
    usual: "A route or an interface is missing, a container network was removed, the machine is off (no \
        answer to ARP), a firewall rejects, or the name also has IPv6 addresses that cannot be reached from \
        here.",
    advice: "Ask the kernel on the gateway's machine which way it would take: `ip route get ADDRESS`.",
    setting: "`backends`; for a name, the addresses that it stands for.",
    nginx: &[
        "connect() failed (113: No route to host) while connecting to upstream",
        "failed (101: Network is unreachable) while connecting to upstream",
    ],
    is_raised: true,
};

pub(super) const CONNECTION_REFUSED: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The backend's machine answered that nobody listens at this port.",
    seen: "`goodgate_attempt_failures_total{cause=\"connection_refused\"}`; in the access record an attempt \
        with `phase` `connect` that took next to no time. `goodgate_ejections_total` follows when it \
        repeats.",
    usual: "The process has crashed or is just starting; it listens at another port or only on 127.0.0.1; a \
        firewall rejects.",
    advice: "See on the backend's machine whether it runs and where it listens (`ss -ltnp`). If it is only \
        restarting, another backend bridges the time.",
    setting: "`backends`; `max_fails` and `fail_timeout` decide how soon and for how long it is left alone.",
    nginx: &["connect() failed (111: Connection refused) while connecting to upstream"],
    is_raised: true,
};

pub(super) const CONNECTION_TIMEOUT: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The connection to the backend did not stand within `timeouts.connect`; with TLS the handshake \
        is part of it.",
    seen: "`goodgate_attempt_failures_total{cause=\"connection_timeout\"}`, and the upper buckets of \
        `goodgate_upstream_connect_seconds`; in the access record an attempt with `phase` `connect` that \
        lasted as long as the limit.",
    usual: "A firewall that drops, a machine that is gone, or an overloaded backend whose queue of \
        connections to accept is full.",
    advice: "Connect by hand from the gateway's machine (`nc -vz ADDRESS PORT`). If that hangs too, look at \
        firewalls and at the machine; if it works at times, at the backend's accept queue (`ss -ltn`, column \
        Recv-Q).",
    setting: "`timeouts.connect`: a second is plenty within one data centre. Longer hides the trouble and \
        makes clients wait.",
    nginx: &[
        "upstream timed out (110: Connection timed out) while connecting to upstream",
        "upstream timed out (110: Connection timed out) while SSL handshaking to upstream",
    ],
    is_raised: true,
};

pub(super) const CONNECTION_LIMIT_REACHED: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "Every backend in rotation has as many requests under way as its `max_conns` allows, or the \
        upstream as many as its `breaker`, and the wait for a place was in vain or the queue full.",
    seen: "`goodgate_gateway_errors_total{cause=\"connection_limit_reached\"}`, with many \
        `goodgate_backend_requests_in_flight`; with a `breaker`, `goodgate_upstream_requests_shed_total` says \
        why, and `queued_ms` in the record how long the request has waited.",
    usual: "More traffic than the backends are made for, or backends that became slow, so that each request \
        occupies its connection for longer.",
    advice: "Compare `goodgate_upstream_first_byte_seconds` with what it usually is: if it rose, find out \
        why they are slow; otherwise add backends.",
    setting: "`upstreams.*.backends[].max_conns`, `upstreams.*.breaker`.",
    nginx: &["no live upstreams while connecting to upstream"],
    is_raised: true,
};

pub(super) const TLS_CERTIFICATE_ERROR: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The backend's certificate was not accepted: not signed by an authority that is trusted here, \
        expired, not valid yet, or made out to another name.",
    seen: "`goodgate_attempt_failures_total{cause=\"tls_certificate_error\"}`; in the access record an \
        attempt with `phase` `connect`.",
    usual: "A certificate that nobody renewed, one of an internal authority that the gateway does not know, \
        a missing intermediate certificate, a backend that is asked by its address and not by the name in \
        the certificate, or a wrong clock.",
    advice: "See what the backend shows: `openssl s_client -connect ADDRESS:PORT -servername NAME \
        -showcerts`, and compare names, dates and issuer.",
    setting: "`tls.ca` names the authority, `tls.sni` the name that is asked for and compared; `tls.verify` \
        with `off` accepts anyone, and so anyone in between.",
    nginx: &["upstream SSL certificate verify error", "upstream SSL certificate does not match"],
    is_raised: true,
};

pub(super) const TLS_PROTOCOL_ERROR: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The TLS handshake with the backend failed for another reason than its certificate.",
    seen: "`goodgate_attempt_failures_total{cause=\"tls_protocol_error\"}`; in the access record an attempt \
        with `phase` `connect`.",
    usual: "The port speaks plain HTTP, or the backend closed in the middle of the handshake, or both sides \
        have no version or cipher in common.",
    advice: "Try both ways by hand: `curl -v http://ADDRESS:PORT/` and `openssl s_client -connect \
        ADDRESS:PORT`. Whichever answers is what the port speaks.",
    setting: "`tls` of the upstream, and the port in `backends`.",
    nginx: &[
        "SSL_do_handshake() failed",
        "peer closed connection in SSL handshake while SSL handshaking to upstream",
    ],
    is_raised: true,
};

pub(super) const TLS_ALERT_RECEIVED: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The backend refused the TLS handshake and said so with an alert.",
    seen: "`goodgate_attempt_failures_total{cause=\"tls_alert_received\"}`; in the access record an attempt \
        with `phase` `connect`.",
    usual: "The backend does not know the name that is asked for, wants a certificate of its client, or \
        allows only versions that the gateway does not offer.",
    advice: "Ask with and without the name (`openssl s_client -connect ADDRESS:PORT -servername NAME`) and \
        see in the backend's log which alert it sent.",
    setting: "`tls.sni` is the name that is asked for.",
    nginx: &["SSL_do_handshake() failed (… SSL alert number …) while SSL handshaking to upstream"],
    is_raised: true,
};

pub(super) const RESOURCE_EXHAUSTED: Guide = Guide {
    chapter: Chapter::Reaching,
    meaning: "The gateway's own machine is short of local ports, file descriptors or memory, so that no \
        connection could be made. It is not the backend's fault.",
    seen: "`goodgate_attempt_failures_total{cause=\"resource_exhausted\"}`; `process_open_fds` near \
        `process_max_fds`.",
    usual: "A low limit of open files, tens of thousands of connections to one backend address, or slow \
        backends that keep many requests open.",
    advice: "Compare `process_open_fds` with `process_max_fds`; if there is room, count the connections to \
        one address (`ss -tan dst ADDRESS`) against `net.ipv4.ip_local_port_range`.",
    setting: "The hard limit of open files, to which the gateway raises its own at the start (`LimitNOFILE` \
        of the unit); `server.upstream_keepalive` spares ports; more backends have more.",
    nginx: &[
        "worker_connections are not enough while connecting to upstream",
        "socket() failed (24: Too many open files) while connecting to upstream",
        "failed (99: Cannot assign requested address) while connecting to upstream",
    ],
    is_raised: true,
};
