"""What has to be loaded before the first picture is drawn."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from maml_rl.tasks import make
mdp = make("maml_rl.envs:finn2017/HalfCheetahVel-v0").unwrapped.mdp
assert "triton" not in sys.modules
try:
    mdp.renderer(32, 32).close()
except RuntimeError as error:
    assert "OpenGL" in str(error)
print("triton" in sys.modules)
"""


def test_triton_is_loaded_before_opengl_brings_another_llvm(tmp_path: Path) -> None:
    """The other way round, PyTorch for CUDA crashes when it makes its first optimiser."""
    (tmp_path / "triton.py").touch()
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True"
