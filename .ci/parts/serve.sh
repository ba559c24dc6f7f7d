#!/bin/bash
# Installs the real parts that the tests of gptoss-serve want: Chromium and what drives it, OpenAI's JavaScript SDKs,
# LiteLLM. Codex is installed by the tools' part into its folder of node modules, which the tests look for on PATH. May
# be run again. Source it.
#
# Exports: PATH               with Codex
#          GPTOSS_SERVE_NODE  a folder of node modules: playwright-core, openai, @openai/agents, zod
#          GPTOSS_LITELLM     a folder for PYTHONPATH with LiteLLM and what only it needs
GPTOSS_PARTS="${GPTOSS_PARTS:-$HOME/.cache/gptoss-parts}"
export PATH="$GPTOSS_PARTS/node/node_modules/.bin:$PATH"
export GPTOSS_SERVE_NODE="$GPTOSS_PARTS/serve-node"
export GPTOSS_LITELLM="$GPTOSS_PARTS/litellm"

if ! command -v chromium > /dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null
fi
if [ ! -d "$GPTOSS_SERVE_NODE/node_modules/playwright-core" ]; then
    mkdir -p "$GPTOSS_SERVE_NODE"
    npm install --silent --no-fund --no-audit --prefix "$GPTOSS_SERVE_NODE" playwright-core
fi
if [ ! -d "$GPTOSS_SERVE_NODE/node_modules/@openai/agents" ]; then
    npm install --silent --no-fund --no-audit --prefix "$GPTOSS_SERVE_NODE" \
        openai@7.57.0 @openai/agents@0.20.0 zod@4
fi
# LiteLLM asks for a newer certifi than every index has, so it is put beside the tests' environment, over what is there
# anyway. Its thousands of files are compiled only when they are imported.
if [ ! -d "$GPTOSS_LITELLM/litellm" ]; then
    python -m pip install -q --no-compile --target "$GPTOSS_LITELLM" \
        fastuuid 'importlib-metadata<9' aiohttp pydantic-settings h2
    python -m pip install -q --no-compile --target "$GPTOSS_LITELLM" --no-deps litellm==1.109.1
fi
