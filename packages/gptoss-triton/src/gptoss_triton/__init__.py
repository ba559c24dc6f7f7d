"""The fast gpt-oss engine for one NVIDIA GPU: packed MXFP4 kernels, CUDA graphs, batching.

from gptoss_triton import TritonEngine, TritonOptions
engine = TritonEngine.open("gpt-oss-20b", TritonOptions())
"""

from gptoss_triton.engine import TritonEngine
from gptoss_triton.errors import TritonError, UnsupportedGpu
from gptoss_triton.options import TritonOptions

__all__ = ["TritonEngine", "TritonError", "TritonOptions", "UnsupportedGpu"]
