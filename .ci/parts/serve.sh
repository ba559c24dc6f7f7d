#!/bin/bash
# Installs the real parts that the tests of gptoss-serve want: Chromium and what drives it. Codex is installed by the
# tools' part into its folder of node modules, which the tests look for on PATH. May be run again. Source it.
#
# Exports: PATH               with Codex
#          GPTOSS_SERVE_NODE  a folder of node modules: playwright-core
GPTOSS_PARTS="${GPTOSS_PARTS:-$HOME/.cache/gptoss-parts}"
export PATH="$GPTOSS_PARTS/node/node_modules/.bin:$PATH"
export GPTOSS_SERVE_NODE="$GPTOSS_PARTS/serve-node"

if ! command -v chromium > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null
fi
if [ ! -d "$GPTOSS_SERVE_NODE/node_modules/playwright-core" ]; then
    mkdir -p "$GPTOSS_SERVE_NODE"
    npm install --silent --no-fund --no-audit --prefix "$GPTOSS_SERVE_NODE" playwright-core
fi
