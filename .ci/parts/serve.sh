#!/bin/bash
# Finds the real parts that the tests of gptoss-serve want. Codex is installed by the tools' part into its folder of
# node modules, which the tests look for on PATH. May be run again. Source it.
export PATH="${GPTOSS_PARTS:-$HOME/.cache/gptoss-parts}/node/node_modules/.bin:$PATH"
