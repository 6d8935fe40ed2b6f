#!/usr/bin/env bash
# Builds the image and tries it as an orchestrator would run it: read-only, without root and capabilities.
#
#     deploy/container/smoke.sh [--prebuilt FILE] [--local-bases]
#
# --prebuilt FILE  takes this binary instead of compiling inside of the build (no network is needed then)
# --local-bases    makes the base images here with debootstrap (as root) instead of pulling them
set -euo pipefail
cd "$(dirname "$0")/../.."

prebuilt=
local_bases=
while (($#)); do
    case $1 in
    --prebuilt) prebuilt=$(realpath "$2") && shift 2 ;;
    --local-bases) local_bases=yes && shift ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" && exit 2 ;;
    esac
done

image=goodgate-smoke
nginx_image=${NGINX_IMAGE:-nginx:stable}
arguments=()
work=$(mktemp -d)

cleanup() {
    docker rm --force smoke-gateway smoke-backend-1 smoke-backend-2 >/dev/null 2>&1 || true
    docker network rm smoke >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "FAILED: $*" >&2
    docker logs smoke-gateway 2>&1 | tail -20 >&2 || true
    exit 1
}

# make_bases: goodgate-base (Debian's smallest) and goodgate-nginx (with nginx) from Debian's packages.
make_bases() {
    local tree=$work/tree
    docker image inspect goodgate-base goodgate-nginx >/dev/null 2>&1 && return
    debootstrap --variant=minbase --include=ca-certificates "${DEBIAN_SUITE:-bookworm}" "$tree" >"$work/debootstrap.log" || fail "$(tail -3 "$work/debootstrap.log")"
    tar --directory "$tree" --exclude ./var/cache/apt --exclude ./var/lib/apt/lists --exclude ./usr/share/doc \
        --create . | docker import - goodgate-base >/dev/null
    # Nothing is to be started in there.
    printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d" && chmod 755 "$tree/usr/sbin/policy-rc.d"
    chroot "$tree" apt-get -qq -o Dpkg::Use-Pty=0 install --yes --no-install-recommends nginx-light >/dev/null 2>&1
    tar --directory "$tree" --create . | docker import - goodgate-nginx >/dev/null
}

# status URL: the status of a GET; 000 if there is no answer.
status() {
    curl --silent --max-time 10 --output /dev/null --write-out '%{http_code}' "$1" || true
}

expect() {
    local got
    got=$(status "$2")
    [[ $got == "$1" ]] || fail "$2 answered $got, not $1"
    echo "ok    $1 ${2#http://*/}"
}

# eventually SECONDS COMMAND...
eventually() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || fail "did not come true: $*"
        sleep 0.2
    done
}

backend() {
    docker run --detach --rm --name "smoke-$1" --network smoke --network-alias "$1" \
        --volume "$work/nginx.conf:/nginx.conf:ro" --entrypoint nginx "$nginx_image" -c /nginx.conf >/dev/null
}

# gateway ARGUMENTS...: starts it and waits until it is healthy.
gateway() {
    docker rm --force smoke-gateway >/dev/null 2>&1 || true
    docker run --detach --name smoke-gateway --network smoke --read-only --cap-drop ALL \
        --security-opt no-new-privileges --publish 127.0.0.1::8080 --publish 127.0.0.1::9180 "$@" "$image" >/dev/null
    site=http://$(docker port smoke-gateway 8080 | head -1)
    admin=http://$(docker port smoke-gateway 9180 | head -1)
    eventually 20 is_ready
}

is_ready() { [[ $(status "$admin/readyz") == 200 ]]; }
is_healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' smoke-gateway) == healthy ]]; }
serves() { [[ $(status "$site/") == 200 ]]; }

# total SELECTOR: the sum of the series whose text matches.
total() {
    curl --silent --fail "$admin/metrics" | grep -E "^$1" | awk '{ sum += $NF } END { print sum + 0 }'
}

if [[ $local_bases ]]; then
    echo '--- local base images'
    make_bases
    arguments+=(--build-arg BUILD_IMAGE=goodgate-base --build-arg RUN_IMAGE=goodgate-base)
    nginx_image=goodgate-nginx
fi

echo '--- image'
context=.
if [[ $prebuilt ]]; then
    # A context of its own: the same Dockerfile, the same configuration, the binary given.
    context=$work/context
    mkdir -p "$context/deploy/container"
    cp deploy/container/goodgate.yaml "$context/deploy/container/"
    cp "$prebuilt" "$context/goodgate"
    arguments+=(--build-arg BINARY_FROM=prebuilt)
fi
DOCKER_BUILDKIT=1 docker build --quiet --file Dockerfile --tag "$image" "${arguments[@]}" "$context" >/dev/null
user=$(docker inspect --format '{{.Config.User}}' "$image")
[[ $user && $user != 0* && $user != root* ]] || fail "the image runs as ${user:-root}"
echo "ok    $(docker inspect --format '{{.Size}}' "$image" | awk '{ printf "%d MB", $1 / 1e6 }'), user $user"

cat >"$work/nginx.conf" <<'NGINX'
daemon off; pid /tmp/pid; error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
    server { listen 80; location / { default_type text/plain; return 200 "$hostname\n"; } }
}
NGINX
chmod -R a+rX "$work"
docker network create smoke >/dev/null
backend backend-1
backend backend-2

echo '--- with its own configuration'
gateway --env GOODGATE_BACKEND=backend-1:80
eventually 10 serves
expect 200 "$site/"
expect 200 "$admin/livez"
expect 200 "$admin/readyz"
expect 200 "$admin/metrics"
expect 403 "$admin/"
expect 403 "$admin/api/v1/backends"
for command in backends survival 'explain none'; do
    # Exit code 1 of `explain` says that there is no such request.
    said=$(docker exec smoke-gateway goodgate $command 2>&1) || [[ $said == *"no record"* ]] || fail "goodgate $command: $said"
done
docker exec smoke-gateway goodgate reload >/dev/null || fail 'goodgate reload'
echo 'ok    backends, survival, explain and reload work in the container without a token'
eventually 30 is_healthy
echo 'ok    healthy, as the binary itself sees it'

echo '--- with the configuration of deploy/compose'
gateway --volume "$PWD/deploy/compose/goodgate.yaml:/etc/goodgate/goodgate.yaml:ro"
eventually 10 serves
statuses=
for at in {1..60}; do
    ((at != 20)) || docker kill smoke-backend-1 >/dev/null
    statuses+=$(status "$site/")' '
done
[[ $statuses == "$(printf '200 %.0s' {1..60})" ]] || fail "a backend was killed and the client saw: $statuses"
rescued=$(total 'goodgate_rescues_total\{.*by="retry"')
((rescued > 0)) || fail 'nothing was rescued by a retry'
echo "ok    60 of 60 answers are 200 though one of two backends was killed ($rescued rescued by a retry)"
docker kill smoke-backend-2 >/dev/null
for _ in {1..5}; do
    expect 200 "$site/"
done
rescued=$(total 'goodgate_rescues_total\{.*by="stale"')
((rescued > 0)) || fail 'nothing was rescued by a copy'
(($(total 'goodgate_responses_total\{.*status="50[234]"') == 0)) || fail 'a client saw an error'
echo "ok    the last good copy answers when no backend is left ($rescued rescued)"

echo '--- stop'
start=$(date +%s%N)
docker stop --time 40 smoke-gateway >/dev/null
took=$((($(date +%s%N) - start) / 1000000))
code=$(docker inspect --format '{{.State.ExitCode}}' smoke-gateway)
[[ $code == 0 ]] || fail "ended with exit code $code"
((took < 5000)) || fail "took $took ms to stop although nothing was under way"
echo "ok    stopped in $took ms, exit code 0"
echo 'all good'
