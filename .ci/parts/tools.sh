#!/bin/bash
# Installs and starts the real parts that the tests of gptoss-tools want: bubblewrap, a Docker engine with an
# image, the extras. May be run again. Source it, so that what it exports reaches the tests:
#
#   . .ci/parts/tools.sh
#
# Exports: DOCKER_HOST        the engine's socket
#          GPTOSS_TEST_IMAGE  an image with Python 3.11 and its standard library
#          GPTOSS_NODE        a folder of node modules: codex, bun, the MCP conformance runner
# Adds what stops the engine to the array STOP_PARTS.
# Takes about two minutes the first time (most of it the image), two seconds afterwards.

GPTOSS_PARTS="${GPTOSS_PARTS:-$HOME/.cache/gptoss-parts}"
mkdir -p "$GPTOSS_PARTS"

_tools_packages() {
    command -v bwrap > /dev/null && command -v dockerd > /dev/null && command -v debootstrap > /dev/null && return
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bubblewrap docker.io iptables debootstrap > /dev/null
}

_tools_engine() {
    local home="$GPTOSS_PARTS/docker"
    mkdir -p "$home"
    export DOCKER_HOST="unix://$home/s.sock"
    docker info > /dev/null 2>&1 && return
    rm -f "$home/pid" "$home/s.sock"
    # Its own data, no network at all: the jails have none, and nothing is pulled.
    nohup dockerd --data-root "$home/data" --exec-root "$home/exec" --pidfile "$home/pid" -H "$DOCKER_HOST" \
        --iptables=false --ip6tables=false --bridge=none > "$home/log" 2>&1 &
    for _ in $(seq 60); do
        docker info > /dev/null 2>&1 && return
        sleep 1
    done
    tail -5 "$home/log" >&2
    return 1
}

_tools_image() {
    export GPTOSS_TEST_IMAGE="gptoss-python:test"
    docker image inspect "$GPTOSS_TEST_IMAGE" > /dev/null 2>&1 && return
    local root="$GPTOSS_PARTS/rootfs"
    rm -rf "$root"
    debootstrap --variant=minbase --include=python3 bookworm "$root" > "$GPTOSS_PARTS/debootstrap.log" || return 1
    # The session test mounts this machine's interpreter, which may live below /root.
    chmod 755 "$root/root"
    tar -C "$root" -c . | docker import - "$GPTOSS_TEST_IMAGE" > /dev/null || return 1
    rm -rf "$root"
}

_tools_node() {
    export GPTOSS_NODE="$GPTOSS_PARTS/node"
    mkdir -p "$GPTOSS_NODE"
    [ -e "$GPTOSS_NODE/node_modules/.bin/codex" ] && return
    npm install --silent --no-fund --no-audit --prefix "$GPTOSS_NODE" \
        @openai/codex bun @modelcontextprotocol/conformance@0.1.16 > /dev/null
}

for _tools_step in _tools_packages _tools_engine _tools_image _tools_node; do
    $_tools_step || { echo "tools.sh: $_tools_step failed" >&2; return 1 2> /dev/null || exit 1; }
done
STOP_PARTS+=("kill \$(cat '$GPTOSS_PARTS/docker/pid')")
