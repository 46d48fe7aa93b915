"""A Python with grpcio and its tools, and the stubs of all packages."""

import os
import shutil
import subprocess
import sys

from cluster import BIN, ROOT

# Only where it is run again, in the other Python: so that this happens once.
AGAIN = "RINGFORT_DOORS"


def need_grpc():
    """Goes on in a Python that has grpcio and its tools: as examples/coming-from/clients.sh makes it."""
    try:
        import grpc
        import grpc_tools
        return
    except ImportError:
        pass
    if AGAIN in os.environ:
        raise SystemExit(f"{sys.executable} has no grpcio and grpcio-tools")
    python = os.environ.get("RINGFORT_PYTHON")
    if python is None:
        venv, wanted = BIN.parent / "foreign" / "venv", ROOT / "examples" / "coming-from" / "requirements.txt"
        made = venv / "requirements.txt"
        if not made.exists() or made.read_bytes() != wanted.read_bytes():
            shutil.rmtree(venv, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
            pip = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted]
            subprocess.run(pip, check=True)
            shutil.copy(wanted, made)
        python = str(venv / "bin" / "python")
    os.execve(python, [python, *sys.argv], {**os.environ, AGAIN: "again"})


def make_stubs(home):
    """Makes the stubs in a directory, and makes them importable."""
    stubs, protos = home / "stubs", ROOT / "crates" / "proto" / "proto"
    stubs.mkdir()
    files = ["family/family.proto", "proto/kv.proto", "kvstore/v1/kvstore.proto", "kv/kv.proto", "ringfort/v1/kv.proto",
             "ringfort/v1/cluster.proto"]
    out = [f"--python_out={stubs}", f"--grpc_python_out={stubs}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", protos, *out, *files], check=True)
    sys.path.insert(0, str(stubs))
