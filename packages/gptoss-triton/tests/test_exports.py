import subprocess
import sys

import gptoss_triton


def test_exports_are_sorted_and_there():
    assert sorted(gptoss_triton.__all__) == gptoss_triton.__all__
    for name in gptoss_triton.__all__:
        assert getattr(gptoss_triton, name)


def test_the_engine_imports_without_triton():
    code = (
        "import sys; sys.modules['triton'] = None; import gptoss_triton; "
        "from gptoss_harmony.plugins import unavailable; "
        "assert unavailable(gptoss_triton.TritonEngine)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
